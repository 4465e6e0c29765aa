-- One row an observation, dated when it is known: an hour after it was made.
SELECT
    origin,
    known_at AS event_time,
    temp AS temperature,
    temp - dewp AS dew_point_spread,
    humid AS humidity,
    wind_speed,
    coalesce(wind_gust, wind_speed) AS wind_gust,
    CAST(wind_dir AS DOUBLE) AS wind_direction,
    visib AS visibility,
    pressure,
    pressure - min(pressure) OVER last_3h AS pressure_rise_3h,
    precip AS precipitation,
    sum(precip) OVER last_3h AS precipitation_3h,
    min(visib) OVER last_3h AS visibility_min_3h
FROM weather
WINDOW last_3h AS (
    PARTITION BY origin
    ORDER BY observed_at RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW
)

-- How far the parcels of a depot went that were sent in the day before.
SELECT DISTINCT depot, sent_at AS event_time,
    avg(distance_km) OVER (
        PARTITION BY depot ORDER BY sent_at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
    ) AS mean_distance_km
FROM parcels

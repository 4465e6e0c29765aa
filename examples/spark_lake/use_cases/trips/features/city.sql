-- How trips of a city went in the last day, each time that some of them have become known.
WITH known AS (
    SELECT
        city,
        known_at,
        count(*) AS trips,
        sum(minutes - planned) AS behind,
        count(*) FILTER (minutes > planned) AS late
    FROM trips
    GROUP BY ALL
)

SELECT
    city,
    known_at AS event_time,
    sum(behind) OVER last_1d / sum(trips) OVER last_1d AS behind_1d,
    sum(late) OVER last_1d / sum(trips) OVER last_1d AS late_share_1d
FROM known
WINDOW last_1d AS (
    PARTITION BY city
    ORDER BY known_at RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW
)

WITH
known AS (
    SELECT
        origin,
        destination,
        known_at,
        count(*) AS flights,
        count(*) FILTER (status <> 'arrived' OR arrival_delay > 15) AS late,
        count(arrival_delay) AS arrived,
        sum(least(arrival_delay, 180)) AS arrival_delay
    FROM outcomes
    GROUP BY ALL
)

SELECT
    origin,
    destination,
    known_at AS event_time,
    (sum(late) OVER last_14d + 1) / (sum(flights) OVER last_14d + 4) AS late_share_14d,
    coalesce(sum(arrival_delay) OVER last_14d, 0) / (sum(arrived) OVER last_14d + 4)
        AS arrival_delay_14d,
    sum(flights) OVER last_14d AS flights_14d
FROM known
WINDOW last_14d AS (
    PARTITION BY origin, destination
    ORDER BY known_at RANGE BETWEEN INTERVAL 336 HOURS PRECEDING AND CURRENT ROW
)

WITH
-- One row a minute: flights that land in the same minute become known together.
known AS (
    SELECT
        carrier,
        known_at,
        count(*) AS flights,
        count(*) FILTER (status <> 'arrived' OR arrival_delay > 15) AS late,
        count(*) FILTER (status <> 'arrived') AS not_arrived,
        count(arrival_delay) AS arrived,
        sum(least(departure_delay, 180)) AS departure_delay,
        sum(least(arrival_delay, 180)) AS arrival_delay
    FROM outcomes
    GROUP BY ALL
)

SELECT
    carrier,
    known_at AS event_time,
    sum(late) OVER last_7d / sum(flights) OVER last_7d AS late_share_7d,
    sum(not_arrived) OVER last_7d / sum(flights) OVER last_7d AS not_arrived_share_7d,
    sum(arrival_delay) OVER last_7d / sum(arrived) OVER last_7d AS arrival_delay_7d,
    sum(late) OVER last_1d / sum(flights) OVER last_1d AS late_share_1d,
    (sum(late) OVER last_4h + 1) / (sum(flights) OVER last_4h + 4) AS late_share_4h,
    coalesce(sum(departure_delay) OVER last_4h, 0) / (sum(arrived) OVER last_4h + 4)
        AS departure_delay_4h
FROM known
WINDOW
    last_7d AS (
        PARTITION BY carrier
        ORDER BY known_at RANGE BETWEEN INTERVAL 168 HOURS PRECEDING AND CURRENT ROW
    ),
    last_1d AS (
        PARTITION BY carrier
        ORDER BY known_at RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW
    ),
    last_4h AS (
        PARTITION BY carrier
        ORDER BY known_at RANGE BETWEEN INTERVAL 4 HOURS PRECEDING AND CURRENT ROW
    )

WITH
known AS (
    SELECT
        carrier,
        flight,
        known_at,
        count(*) AS flights,
        count(*) FILTER (status <> 'arrived' OR arrival_delay > 15) AS late,
        count(arrival_delay) AS arrived,
        sum(least(arrival_delay, 180)) AS arrival_delay,
        sum(least(departure_delay, 180)) AS departure_delay,
        -- The tail number breaks ties, so that the order of the rows does not matter.
        arg_max(plane_seats, tailnum) AS seats,
        arg_max(year(known_at) - plane_year, tailnum) AS age
    FROM outcomes
    GROUP BY ALL
)

SELECT
    carrier,
    flight,
    known_at AS event_time,
    CAST(seats AS DOUBLE) AS seats,
    CAST(age AS DOUBLE) AS age,
    (sum(late) OVER last_28d + 1) / (sum(flights) OVER last_28d + 4) AS late_share_28d,
    coalesce(sum(arrival_delay) OVER last_28d, 0) / (sum(arrived) OVER last_28d + 4)
        AS arrival_delay_28d,
    coalesce(sum(departure_delay) OVER last_28d, 0) / (sum(arrived) OVER last_28d + 4)
        AS departure_delay_28d,
    sum(flights) OVER last_28d AS flights_28d
FROM known
WINDOW last_28d AS (
    PARTITION BY carrier, flight
    ORDER BY known_at RANGE BETWEEN INTERVAL 672 HOURS PRECEDING AND CURRENT ROW
)

-- One row a minute with a departure. The schedule is known a day ahead, so the rows are too,
-- and no example gets a row that is older than its departure.
WITH
flights AS (
    SELECT
        s.origin,
        s.scheduled_at,
        s.scheduled_arrival_at + INTERVAL 15 MINUTES AS due_at,
        -- Known of every flight at due_at, also of those that are still out.
        o.known_at IS NULL OR o.known_at >= due_at AS late,
        -- Given up after 6 hours, so that the lookback reaches every flight that counts.
        least(o.known_at, due_at + INTERVAL 6 HOURS) AS settled_at,
        o.known_at = settled_at AND o.status <> 'arrived' AS not_arrived,
        o.known_at = settled_at AND o.status = 'arrived' AS arrived,
        -- One flight that is half a day late says little about the next.
        CASE WHEN arrived THEN least(o.departure_delay, 180) END AS departure_delay,
        CASE WHEN arrived THEN least(o.arrival_delay, 180) END AS arrival_delay
    FROM schedule AS s
    LEFT JOIN outcomes AS o USING (flight_id)
),

changes AS (
    SELECT origin, scheduled_at AS event_time, 1 AS departures FROM flights
    UNION ALL BY NAME
    SELECT
        origin,
        due_at AS event_time,
        1 AS due,
        CAST(late AS INTEGER) AS late,
        CAST(late AS INTEGER) AS overdue,
        CASE WHEN late THEN epoch_ms(due_at) // 60000 END AS overdue_since
    FROM flights
    UNION ALL BY NAME
    SELECT
        origin,
        settled_at AS event_time,
        -CAST(late AS INTEGER) AS overdue,
        CASE WHEN late THEN -(epoch_ms(due_at) // 60000) END AS overdue_since,
        CAST(not_arrived AS INTEGER) AS not_arrived,
        CAST(arrived AS INTEGER) AS arrived,
        departure_delay,
        arrival_delay
    FROM flights
),

minutes AS (
    SELECT
        origin,
        event_time,
        count(departures) > 0 AS has_departure,
        CAST(sum(departures) AS DOUBLE) AS departures,
        CAST(sum(due) AS DOUBLE) AS due,
        CAST(sum(late) AS DOUBLE) AS late,
        CAST(sum(overdue) AS DOUBLE) AS overdue,
        CAST(sum(overdue_since) AS DOUBLE) AS overdue_since,
        CAST(sum(not_arrived) AS DOUBLE) AS not_arrived,
        CAST(sum(arrived) AS DOUBLE) AS arrived,
        CAST(sum(departure_delay) AS DOUBLE) AS departure_delay,
        CAST(sum(arrival_delay) AS DOUBLE) AS arrival_delay
    FROM changes
    GROUP BY origin, event_time
),

-- Differences of running totals are much cheaper than sliding windows. They are exact, as DOUBLE
-- holds whole numbers of this size, and it adds faster than the HUGEINT of an integer sum.
totals AS (
    SELECT
        origin,
        event_time,
        has_departure,
        coalesce(sum(departures) OVER so_far, 0) AS departures,
        coalesce(sum(due) OVER so_far, 0) AS due,
        coalesce(sum(late) OVER so_far, 0) AS late,
        coalesce(sum(overdue) OVER so_far, 0) AS overdue,
        coalesce(sum(overdue_since) OVER so_far, 0) AS overdue_since,
        coalesce(sum(not_arrived) OVER so_far, 0) AS not_arrived,
        coalesce(sum(arrived) OVER so_far, 0) AS arrived,
        coalesce(sum(departure_delay) OVER so_far, 0) AS departure_delay,
        coalesce(sum(arrival_delay) OVER so_far, 0) AS arrival_delay
    FROM minutes
    WINDOW
        so_far AS (PARTITION BY origin ORDER BY event_time ROWS UNBOUNDED PRECEDING)
)

SELECT
    t.origin,
    t.event_time,
    t.departures - coalesce(h1.departures, 0) AS departures_1h,
    t.departures - coalesce(h3.departures, 0) AS departures_3h,
    t.not_arrived - coalesce(h3.not_arrived, 0) AS not_arrived_3h,
    t.overdue,
    t.overdue * (epoch_ms(t.event_time) // 60000) - t.overdue_since AS overdue_minutes,
    -- As if four more flights had been seen, one of them late: few flights are weak evidence.
    (t.late - coalesce(h1.late, 0) + 1) / (t.due - coalesce(h1.due, 0) + 4) AS late_share_1h,
    (t.late - coalesce(h3.late, 0) + 1) / (t.due - coalesce(h3.due, 0) + 4) AS late_share_3h,
    (t.departure_delay - coalesce(h1.departure_delay, 0))
    / (t.arrived - coalesce(h1.arrived, 0) + 4) AS departure_delay_1h,
    (t.departure_delay - coalesce(h3.departure_delay, 0))
    / (t.arrived - coalesce(h3.arrived, 0) + 4) AS departure_delay_3h,
    (t.arrival_delay - coalesce(h3.arrival_delay, 0))
    / (t.arrived - coalesce(h3.arrived, 0) + 4) AS arrival_delay_3h
FROM totals AS t
ASOF LEFT JOIN totals AS h1
    ON h1.origin = t.origin
    AND h1.event_time <= t.event_time - INTERVAL 1 HOUR
ASOF LEFT JOIN totals AS h3
    ON h3.origin = t.origin
    AND h3.event_time <= t.event_time - INTERVAL 3 HOURS
WHERE t.has_departure

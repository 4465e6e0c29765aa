-- How the carrier is doing at the airport right now; see origin.sql for the method.
WITH
flights AS (
    SELECT
        s.carrier,
        s.origin,
        s.scheduled_at,
        s.scheduled_arrival_at + INTERVAL 15 MINUTES AS due_at,
        o.known_at IS NULL OR o.known_at >= due_at AS late,
        least(o.known_at, due_at + INTERVAL 6 HOURS) AS settled_at,
        o.known_at = settled_at AND o.status = 'arrived' AS arrived,
        CASE WHEN arrived THEN least(o.departure_delay, 180) END AS departure_delay,
        CASE WHEN arrived THEN least(o.arrival_delay, 180) END AS arrival_delay
    FROM schedule AS s
    LEFT JOIN outcomes AS o USING (flight_id)
),

changes AS (
    SELECT carrier, origin, scheduled_at AS event_time, 1 AS departures FROM flights
    UNION ALL BY NAME
    SELECT
        carrier,
        origin,
        due_at AS event_time,
        1 AS due,
        CAST(late AS INTEGER) AS late,
        CAST(late AS INTEGER) AS overdue
    FROM flights
    UNION ALL BY NAME
    SELECT
        carrier,
        origin,
        settled_at AS event_time,
        -CAST(late AS INTEGER) AS overdue,
        CAST(arrived AS INTEGER) AS arrived,
        departure_delay,
        arrival_delay
    FROM flights
),

minutes AS (
    SELECT
        carrier,
        origin,
        event_time,
        count(departures) > 0 AS has_departure,
        CAST(sum(due) AS DOUBLE) AS due,
        CAST(sum(late) AS DOUBLE) AS late,
        CAST(sum(overdue) AS DOUBLE) AS overdue,
        CAST(sum(arrived) AS DOUBLE) AS arrived,
        CAST(sum(departure_delay) AS DOUBLE) AS departure_delay,
        CAST(sum(arrival_delay) AS DOUBLE) AS arrival_delay
    FROM changes
    GROUP BY carrier, origin, event_time
),

totals AS (
    SELECT
        carrier,
        origin,
        event_time,
        has_departure,
        coalesce(sum(due) OVER so_far, 0) AS due,
        coalesce(sum(late) OVER so_far, 0) AS late,
        coalesce(sum(overdue) OVER so_far, 0) AS overdue,
        coalesce(sum(arrived) OVER so_far, 0) AS arrived,
        coalesce(sum(departure_delay) OVER so_far, 0) AS departure_delay,
        coalesce(sum(arrival_delay) OVER so_far, 0) AS arrival_delay
    FROM minutes
    WINDOW
        so_far AS (PARTITION BY carrier, origin ORDER BY event_time ROWS UNBOUNDED PRECEDING)
)

SELECT
    t.carrier,
    t.origin,
    t.event_time,
    t.overdue,
    (t.late - coalesce(h4.late, 0) + 1) / (t.due - coalesce(h4.due, 0) + 4) AS late_share_4h,
    (t.departure_delay - coalesce(h4.departure_delay, 0))
    / (t.arrived - coalesce(h4.arrived, 0) + 4) AS departure_delay_4h,
    (t.arrival_delay - coalesce(h4.arrival_delay, 0))
    / (t.arrived - coalesce(h4.arrived, 0) + 4) AS arrival_delay_4h
FROM totals AS t
ASOF LEFT JOIN totals AS h4
    ON h4.carrier = t.carrier
    AND h4.origin = t.origin
    AND h4.event_time <= t.event_time - INTERVAL 4 HOURS
WHERE t.has_departure

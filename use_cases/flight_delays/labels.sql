-- A passenger who does not get there at all is not better off than one who is late, so cancelled
-- and diverted flights count as late.
SELECT
    flight_id,
    scheduled_at AS event_time,
    status <> 'arrived' OR arrival_delay > 15 AS label,
    known_at
FROM outcomes

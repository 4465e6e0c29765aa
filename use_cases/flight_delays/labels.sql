-- Late as the US Department of Transportation counts it: 15 minutes or more. A passenger who
-- does not get there at all is not better off, so cancelled and diverted flights are late too.
SELECT
    flight_id,
    scheduled_at AS event_time,
    status <> 'arrived' OR arrival_delay >= 15 AS label,
    known_at
FROM outcomes

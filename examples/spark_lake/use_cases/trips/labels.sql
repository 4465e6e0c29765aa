SELECT trip, started_at AS event_time, minutes > planned AS label, known_at FROM trips

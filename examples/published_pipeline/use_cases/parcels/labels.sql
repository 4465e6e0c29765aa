SELECT parcel, sent_at AS event_time, hours > 24 AS label,
    sent_at + to_seconds(least(hours, 48) * 3600) AS known_at
FROM parcels

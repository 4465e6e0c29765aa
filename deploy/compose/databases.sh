#!/bin/sh
# The image of PostgreSQL runs it once, when its volume is empty: a database and a login for each.
set -eu
for name in lake dagster mlflow; do
    password=$(printenv "$(echo "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD")
    psql --quiet -v ON_ERROR_STOP=1 -v name="$name" -v password="$password" --username "$POSTGRES_USER" <<'END'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
END
done

# The platform with the environment of one use case, which is what its code location, its service and
# its commands run in:
#   docker build -f deploy/use_case.Dockerfile --build-arg USE_CASE=flight_delays -t flight-delays .
# The use case's folder holds requirements.txt and the requirements.lock that was made from it.
# BASE is any image with Python 3.11 or newer as `python` and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS made
ARG USE_CASE
WORKDIR /srv/ml-platform
COPY requirements requirements
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && .venv/bin/uv pip install --no-cache --python .venv/bin/python \
        --require-hashes -r requirements/base.txt
COPY . .
# What the lock file says, never something newer: where it is out of date, the build fails.
RUN .venv/bin/python -m ml_platform.cli environment "${USE_CASE}" --locked \
    && .venv/bin/python -m compileall -q ".venvs/${USE_CASE}"

FROM ${BASE}
ARG USE_CASE
WORKDIR /srv/ml-platform
COPY . .
# At the same path, which its scripts name.
COPY --from=made /srv/ml-platform/.venvs .venvs
RUN useradd --system --create-home --uid 10001 platform \
    && mkdir data \
    && chown platform data
USER 10001
ENV PATH="/srv/ml-platform/.venvs/${USE_CASE}/bin:${PATH}" \
    USE_CASE="${USE_CASE}" \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONDONTWRITEBYTECODE=1
EXPOSE 4000
# A code location; its service is `python -m ml_platform.cli serve` in the same image.
CMD ["sh", "-c", "exec dagster api grpc --host 0.0.0.0 --port 4000 --module-name definitions --location-name ml-platform-${USE_CASE}"]

# As code_location.Dockerfile and service.Dockerfile in one, with the packages of one use case that has
# an environment of its own, from the lock file beside its requirements:
#   docker build -f deploy/images/use_case.Dockerfile --build-arg USE_CASE=trips -t trips:1 .
# BASE is any image with Python 3.11 or newer as `python` and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS installed
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
    && rm -rf .venv data \
    && SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 ".venvs/${USE_CASE}/bin/python" -m compileall -q -f \
        --invalidation-mode unchecked-hash . \
    && mkdir data dagster \
    && chmod g=u data dagster

FROM ${BASE}
ARG USE_CASE
ARG CODE_COMMIT=""
WORKDIR /srv/ml-platform
# At the same path, which its scripts name.
COPY --from=installed /srv/ml-platform /srv/ml-platform
# Any user will do, as on OpenShift, where its group is 0; it has no entry in /etc/passwd.
USER 10001:0
ENV PATH="/srv/ml-platform/.venvs/${USE_CASE}/bin:${PATH}" \
    HOME=/tmp \
    LOGNAME=ml-platform \
    PYTHONPATH=/srv/ml-platform \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    USE_CASE="${USE_CASE}" \
    DAGSTER_HOME=/srv/ml-platform/dagster \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DAGSTER_EVENT_BATCH_SIZE=1000 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    ML_PLATFORM_CODE_COMMIT="${CODE_COMMIT}"
EXPOSE 4000
# A code location; its service is `python -m ml_platform.cli serve` in the same image.
CMD ["sh", "-c", "exec dagster api grpc --host 0.0.0.0 --port 4000 --module-name definitions --location-name ml-platform-${USE_CASE}"]

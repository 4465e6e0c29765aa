# A code location of Dagster, and what else runs of Dagster: web server, daemon, runs.
#   docker build -f deploy/images/code_location.Dockerfile -t ml-platform/code_location:1 .
# BASE is any image with Python 3.11 or newer as `python` and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS installed
WORKDIR /srv/ml-platform
COPY requirements/uv.txt requirements/sbom.txt requirements/code_location.txt requirements/base.txt requirements/
COPY deploy/images/install.sh /opt/install.sh
COPY pyproject.toml definitions.py ./
COPY ml_platform ml_platform
COPY ml_platform_dagster ml_platform_dagster
COPY assets assets
COPY resources resources
COPY sensors sensors
COPY use_cases use_cases
RUN /opt/install.sh code_location /srv/ml-platform \
    && mkdir data dagster \
    && chmod g=u data dagster

FROM ${BASE}
ARG CODE_COMMIT=""
WORKDIR /srv/ml-platform
COPY --from=installed /opt/ml-platform /opt/ml-platform
COPY --from=installed /srv/ml-platform /srv/ml-platform
# Any user will do, as on OpenShift, where its group is 0; it has no entry in /etc/passwd.
USER 10001:0
ENV PATH="/opt/ml-platform/bin:${PATH}" \
    HOME=/tmp \
    LOGNAME=ml-platform \
    PYTHONPATH=/srv/ml-platform \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/srv/ml-platform/dagster \
    DAGSTER_DISABLE_TELEMETRY=1 \
    DAGSTER_EVENT_BATCH_SIZE=1000 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    ML_PLATFORM_CODE_COMMIT="${CODE_COMMIT}"
EXPOSE 4000
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s CMD ["python", "-c", "import grpc; from grpc_health.v1 import health_pb2, health_pb2_grpc; health_pb2_grpc.HealthStub(grpc.insecure_channel('127.0.0.1:4000')).Check(health_pb2.HealthCheckRequest(), timeout=8)"]
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "definitions", "--location-name", "ml-platform"]

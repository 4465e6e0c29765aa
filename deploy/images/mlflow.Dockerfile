# MLflow's tracking server with what it needs for PostgreSQL, S3 and Azure's storage:
#   docker build -f deploy/images/mlflow.Dockerfile -t ml-platform/mlflow:1 .
# BASE is any image with Python 3.11 or newer as `python` and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS installed
WORKDIR /srv/ml-platform
COPY requirements/uv.txt requirements/sbom.txt requirements/mlflow.txt requirements/
COPY deploy/images/install.sh /opt/install.sh
RUN /opt/install.sh mlflow \
    && mkdir data \
    && chmod g=u data

FROM ${BASE}
WORKDIR /srv/ml-platform
COPY --from=installed /opt/ml-platform /opt/ml-platform
COPY --from=installed /srv/ml-platform/data data
# Any user will do, as on OpenShift, where its group is 0; it has no entry in /etc/passwd.
USER 10001:0
ENV PATH="/opt/ml-platform/bin:${PATH}" \
    HOME=/tmp \
    LOGNAME=ml-platform \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_BACKEND_STORE_URI=sqlite:////srv/ml-platform/data/mlflow.db \
    MLFLOW_ARTIFACTS_DESTINATION=/srv/ml-platform/data/artifacts
EXPOSE 5000
HEALTHCHECK --start-period=120s --interval=10s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]

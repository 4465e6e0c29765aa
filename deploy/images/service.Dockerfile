# The prediction service, without Dagster:
#   docker build -f deploy/images/service.Dockerfile -t ml-platform/service:1 .
# BASE is any image with Python 3.11 or newer as `python` and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS installed
WORKDIR /srv/ml-platform
COPY requirements/uv.txt requirements/sbom.txt requirements/service.txt requirements/base.txt requirements/
COPY deploy/images/install.sh /opt/install.sh
COPY pyproject.toml ./
COPY ml_platform ml_platform
COPY use_cases use_cases
RUN /opt/install.sh service /srv/ml-platform \
    && mkdir data \
    && chmod g=u data

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
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    ML_PLATFORM_CODE_COMMIT="${CODE_COMMIT}"
EXPOSE 8080 8081
HEALTHCHECK --start-period=300s --interval=10s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
CMD ["python", "-m", "ml_platform.cli", "serve"]

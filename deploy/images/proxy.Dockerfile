# Apache with the login of deploy/proxy, whose files are mounted:
#   docker build -f deploy/images/proxy.Dockerfile -t ml-platform/proxy:1 .
# BASE is Debian 12 or newer.
ARG BASE=debian:bookworm-slim

FROM ${BASE}
# Debian's packages of one release differ by security fixes alone, so none is held at an older one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends apache2 ca-certificates curl libapache2-mod-auth-openidc \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig /var/log/*.log /var/log/apt \
    && a2enmod -q ssl headers proxy proxy_http auth_openidc \
    && a2dissite -q 000-default \
    && ln -s /etc/ml-platform/proxy/apache.conf /etc/apache2/sites-enabled/ml-platform.conf
# Group 0, by which it reads what is mounted.
USER 33:0
ENV APACHE_RUN_DIR=/tmp \
    APACHE_PID_FILE=/tmp/apache2.pid \
    APACHE_LOCK_DIR=/tmp
EXPOSE 80 443
CMD ["apache2ctl", "-D", "FOREGROUND"]

# Apache with the login of deploy/proxy, whose files are mounted:
#   docker build -f deploy/images/proxy.Dockerfile -t ml-platform/proxy:1 .
# BASE is Debian 12 or newer.
ARG BASE=debian:bookworm-slim

FROM ${BASE}
# Debian's packages of one release differ by security fixes alone, so none is held at an older one.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends apache2 ca-certificates curl libapache2-mod-auth-openidc \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig /var/log/*.log /var/log/apt /var/log/apache2/* \
    && a2enmod -q ssl headers proxy proxy_http auth_openidc \
    && a2dissite -q 000-default \
    && install -d -m 700 -o www-data /var/cache/apache2/mod_auth_openidc/cache \
    && chown www-data /var/log/apache2 \
    && ln -s /etc/ml-platform/proxy/apache.conf /etc/apache2/sites-enabled/ml-platform.conf
# Group 0, by which it reads what is mounted.
USER 33:0
ENV APACHE_RUN_USER=www-data \
    APACHE_RUN_GROUP=www-data \
    APACHE_RUN_DIR=/tmp \
    APACHE_LOCK_DIR=/tmp \
    APACHE_PID_FILE=/tmp/apache2.pid \
    APACHE_LOG_DIR=/var/log/apache2
EXPOSE 80 443
STOPSIGNAL SIGWINCH
CMD ["apache2", "-D", "FOREGROUND"]

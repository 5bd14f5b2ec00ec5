# One image for every command of Safelight: `migrate`, `gateway`, `worker`, `keys`, `settings`.
# The build stage installs from the hash-locked requirements alone; the final stage gets the finished environment, so
# that neither pip's cache nor a build back-end travels with it. Health checks are the orchestrator's, as the
# gateway and the worker prove their health in different ways (see docker-compose.yml).

FROM python:3.13.15-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/safelight
COPY requirements.txt ./
# pyvips is published as source only: pure Python, as nothing here could compile it, over the libvips of pyvips-binary.
# It is built with the locked setuptools, which must be there first; an isolated build would fetch one unchecked.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.txt > build.txt \
 && pip --python /opt/safelight/bin/python install --require-hashes --only-binary :all: -r build.txt \
 && pip --python /opt/safelight/bin/python install --require-hashes --only-binary :all: --no-binary pyvips \
    --no-build-isolation -r requirements.txt
# storage/schema.sql is a symlink to ../schema.sql: COPY keeps the link, so its target must lie beside it here;
# the installed package then holds a plain file.
COPY pyproject.toml README.md LICENSE schema.sql ./
COPY gateway/ gateway/
COPY processors/ processors/
COPY storage/ storage/
COPY safelight/ safelight/
RUN pip --python /opt/safelight/bin/python install --no-deps --no-build-isolation . \
 && pip --python /opt/safelight/bin/python uninstall --yes setuptools \
 && /opt/safelight/bin/python -c "from importlib.resources import files; files('storage').joinpath('schema.sql').read_bytes()"

FROM python:3.13.15-slim-trixie
# A fixed number, so that `runAsNonRoot` and volume permissions can name it.
RUN groupadd --gid 10001 safelight \
 && useradd --uid 10001 --gid safelight --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin safelight
COPY --from=build /opt/safelight /opt/safelight
ENV PATH=/opt/safelight/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SAFELIGHT_HTTP_HOST=0.0.0.0 \
    SAFELIGHT_S3_HOST=0.0.0.0 \
    SAFELIGHT_LOG_FORMAT=json
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
ENTRYPOINT ["safelight"]
CMD ["gateway"]

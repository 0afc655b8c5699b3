# The server in a container: made from the wheel, with torch for CPUs. It runs as an ordinary user on
# a read-only file system. docs/serving.md says how to build and run it.
#
#   docker build --build-arg TORCH_INDEX=... -t protalign .

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir build==1.6.1 \
    && python -m build --wheel --outdir /wheel .

FROM python:3.11-slim-bookworm AS packages
# The index of torch's builds for CPUs, as PyTorch's installation page names it. Without it the usual
# index is asked, whose builds for x86 bring several GB of CUDA.
ARG TORCH_INDEX=
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheel /tmp/wheel
# torch first and alone: its index lacks the pinned versions of what torch needs.
RUN python -m venv /opt/protalign \
    && /opt/protalign/bin/python -m pip install --no-cache-dir --no-deps \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /tmp/constraints.txt)" \
    && /opt/protalign/bin/python -m pip install --no-cache-dir --constraint /tmp/constraints.txt \
        "$(ls /tmp/wheel/*.whl)[serve]" \
    && /opt/protalign/bin/python -m pip check \
    && /opt/protalign/bin/protalign --version

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 10001 protalign
COPY --from=packages /opt/protalign /opt/protalign
USER 10001
WORKDIR /home/protalign
# /tmp is the one folder that is written to: uploads, and loops that numba compiles at the start.
ENV NUMBA_CACHE_DIR=/tmp/numba PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["/opt/protalign/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/ready', timeout=4)"]
# It answers beyond the container, so it needs --api-key-file, or --no-auth written out.
ENTRYPOINT ["/opt/protalign/bin/protalign", "serve", "--host", "0.0.0.0", "--port", "8080"]

# The HTTP server, on a processor, as an ordinary user:
#   docker build -t hybridclf .
#   docker run --rm -p 8000:8000 -v "$PWD/my-model:/model:ro" hybridclf --model /model
# For a GPU, install torch with CUDA in place of its CPU build: --build-arg TORCH=cu132, as in constraints.txt
FROM python:3.12-slim AS build
ARG TORCH=cpu
WORKDIR /src
RUN pip install --no-cache-dir uv
COPY pyproject.toml README.md LICENSE MANIFEST.in constraints.txt ./
COPY hybridclf hybridclf
COPY adapters adapters
COPY models models
RUN uv venv /opt/hybridclf && \
    uv pip install --no-cache --python /opt/hybridclf/bin/python --torch-backend "$TORCH" \
        -c constraints.txt ".[server]" ./models

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 server
COPY --from=build /opt/hybridclf /opt/hybridclf
USER server
WORKDIR /home/server
# one thread of torch: run a container per core, or give more with --env OMP_NUM_THREADS=8
ENV PATH=/opt/hybridclf/bin:$PATH OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
# for another port, a socket or HTTPS give docker run a --health-cmd of its own
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["hybridclf", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model", "cifar10"]

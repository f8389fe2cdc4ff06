# rlbench for CPUs, from the wheel, as a user without rights:
#   docker build -t rlbench . && docker run --rm -v "$PWD:/work" rlbench run --suite thermal --model rlbind
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.11-slim
# OpenCV's system libraries
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
COPY --from=build /dist/ /src/constraints.txt /tmp/dist/
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
      -c /tmp/dist/constraints.txt /tmp/dist/*.whl && rm -r /tmp/dist
RUN useradd --create-home --uid 1000 rlbench && install -d -o rlbench /work
USER rlbench
WORKDIR /work
ENTRYPOINT ["rlbench"]
CMD ["--help"]

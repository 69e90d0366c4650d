# The suite in a container: pinned packages, an ordinary user, results on a volume (docs/kubernetes.md).
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bench bench
COPY methods methods
RUN pip install --no-cache-dir -c constraints.txt -e .
RUN useradd --uid 1000 --create-home bench \
    && mkdir /results /cache && chown bench /results /cache
COPY results/reference results/reference
ENV BENCH_CACHE=/cache BENCH_DATA=/data BENCH_WEIGHTS=/weights
USER bench
VOLUME /results
ENTRYPOINT ["python", "-m", "bench.grid", "--results", "/results"]
CMD ["mini"]

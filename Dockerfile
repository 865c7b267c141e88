# syntax=docker/dockerfile:1
FROM node:22-bookworm AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY tsconfig.json ./
COPY src ./src
COPY migrations ./migrations
COPY test ./test
RUN npx tsc && npm prune --omit=dev && rm -rf dist/test

FROM node:22-bookworm-slim
# Two users, for the service and its keeper, of one group: by it both read what neither may change, and the service
# reaches the keeper's socket. The homes are root's, so that neither can exchange the other's folder.
# The keeper's Node may be run and not read: the kernel then shows the memory of its processes to nobody, not even to
# other processes of the same user.
RUN apt-get update \
 && apt-get install -y --no-install-recommends softhsm2 openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 countersign \
 && useradd --system --uid 10001 --gid countersign --home-dir /nonexistent --shell /usr/sbin/nologin countersign \
 && useradd --system --uid 10002 --gid countersign --home-dir /nonexistent --shell /usr/sbin/nologin countersign-keeper \
 && install -d -o root -g countersign -m 0750 /home/countersign /home/countersign/homes \
 && install -d -o countersign-keeper -g countersign -m 0710 /run/countersign \
 && install -D -o root -g root -m 0711 /usr/local/bin/node /usr/local/lib/countersign/node
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
USER countersign
ENV NODE_ENV=production
VOLUME /home/countersign/homes
EXPOSE 8443 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8080/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# The service; docker-compose.yml has the keeper and what makes the home.
# Node must not be process 1's only signal handler: --init of the engine (compose: init) forwards signals.
# As npm start does: fewer collections of what a request leaves behind.
CMD ["node", "--max-semi-space-size=32", "dist/src/main.js", "serve", "--home", "/home/countersign/homes/development"]

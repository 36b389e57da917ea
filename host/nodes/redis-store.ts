/**
 * The store between machines: Redis 7 or Valkey, one server or a cluster, through the client ioredis
 * (an optional peer dependency, loaded when a store is opened). A decision is one command,
 * SET key value NX GET PX life: it writes unless there is something, and answers what there is. All
 * commands of a batch go out together.
 *
 * Letting a decision live on is a compare and a SET in one script, so that it cannot touch what
 * somebody else has written since. If any command of a batch fails, the batch rejects: then nobody
 * knows what took effect, and doing it again is safe.
 *
 * Redis answers before its replicas have what it has written: a master that dies can take its last
 * decisions along. Nodes that have their flows write them again when they refresh them.
 */
import type { Cluster, Redis } from "ioredis";
import { options as checked, listOf } from "../engine/check.ts";
import { isOfBeginning, type SideName, sideOf } from "../engine/decision.ts";
import { FlowplaneError } from "../errors.ts";
import {
  type FlowStore,
  type Found,
  isSameDecision,
  lifetimeMs,
  type StoreTimes,
} from "./store.ts";

export interface RedisStoreOptions extends StoreTimes {
  /** Servers as "host:port" or paths of Unix sockets; of a cluster, some of its servers. */
  servers: readonly string[];
  /** Whether they are a cluster; default when there is more than one. */
  isCluster?: boolean;
  /** Begins every key; fleets that share a server must differ in it. Default "flowplane:". */
  prefix?: string;
  /** After how long an unanswered command counts as failed; default 500 ms. */
  timeoutMs?: number;
  /** Password of the servers, where they want one. */
  password?: string;
}

const NAMES = {
  servers: 0,
  isCluster: 0,
  prefix: 0,
  timeoutMs: 0,
  password: 0,
  ttlMs: 0,
  holdMs: 0,
};

/** Lets a key live on if it still holds a value, with that or another one. */
const EXTEND = `
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1`;

/**
 * Opens a store.
 * @throws {FlowplaneError} when ioredis is not installed, no server answers, or none takes decisions;
 * TypeError when the options are none
 */
export async function openRedisStore(options: RedisStoreOptions): Promise<FlowStore> {
  const servers = listOf("servers", checked("", options, NAMES).servers);
  const { isCluster = servers.length > 1, timeoutMs = 500, password } = options;
  if (servers.length === 0) throw new FlowplaneError("nodes: servers: there is none");
  const ioredis = await import("ioredis").catch((cause: unknown) => {
    throw new FlowplaneError("nodes: ioredis is missing: npm install ioredis", { cause });
  });
  const common = {
    commandTimeout: timeoutMs,
    connectTimeout: 4 * timeoutMs,
    maxRetriesPerRequest: 1,
    enableAutoPipelining: true,
    // Its first argument is no key: it would join the pipeline of a wrong server.
    autoPipeliningIgnoredCommands: ["eval"],
    ...(password !== undefined && { password }),
  };
  const addresses = servers.map(addressOf);
  if (isCluster && addresses.some((address) => "path" in address)) {
    throw new FlowplaneError("nodes: servers of a cluster have a host and a port each");
  }
  const client = isCluster
    ? new ioredis.Cluster(addresses as { host: string; port: number }[], {
        redisOptions: common,
        enableAutoPipelining: true,
        autoPipeliningIgnoredCommands: common.autoPipeliningIgnoredCommands,
        slotsRefreshTimeout: 2 * timeoutMs,
        slotsRefreshInterval: 2 * timeoutMs,
        retryDelayOnFailover: 100,
        maxRedirections: 4,
        lazyConnect: true,
      })
    : new ioredis.Redis({ ...common, ...addresses[0], lazyConnect: true });
  // Without a listener, every lost connection would be an uncaught error; commands say enough, but
  // for the first connection, of which they say only that it is closed.
  let heard: unknown;
  client.on("error", (error) => {
    heard ??= error;
  });
  const store = new RedisStore(client, options);
  try {
    await client.connect();
    await store.probe();
  } catch (cause) {
    client.disconnect();
    throw new FlowplaneError(`nodes: ${servers.join(", ")}: ${reasonOf(heard ?? cause)}`, {
      cause,
    });
  }
  return store;
}

/** What a server, or of a cluster the last one that was asked, has said. */
function reasonOf(error: unknown): string {
  const { lastNodeError = error } = error as { lastNodeError?: unknown };
  return lastNodeError instanceof Error ? lastNodeError.message : String(lastNodeError);
}

function addressOf(server: string): { host: string; port: number } | { path: string } {
  const [, host, port] = server.match(/^(.+):(\d+)$/) ?? [];
  return host === undefined ? { path: server } : { host, port: Number(port) };
}

class RedisStore implements FlowStore {
  readonly #client: Redis | Cluster;
  readonly #times: StoreTimes;
  readonly #prefix: string;

  constructor(client: Redis | Cluster, options: RedisStoreOptions) {
    this.#client = client;
    this.#times = options;
    this.#prefix = options.prefix ?? "flowplane:";
  }

  /** Writes as a decision is written. @throws where that cannot be: a replica, no memory left, no right */
  async probe(): Promise<void> {
    await this.#client.set(`${this.#prefix}probe`, "", "PX", 1, "NX", "GET");
  }

  claim(side: SideName, decisions: readonly Uint8Array[]): Promise<Found[]> {
    return Promise.all(decisions.map((decision) => this.#claim(side, decision, false)));
  }

  refresh(side: SideName, decisions: readonly Uint8Array[]): Promise<Found[]> {
    return Promise.all(decisions.map((decision) => this.#claim(side, decision, true)));
  }

  find(side: SideName, tuples: readonly Uint8Array[]): Promise<Found[]> {
    return Promise.all(
      tuples.map(
        async (tuple) => (await this.#client.getBuffer(this.#key(side, tuple))) ?? undefined,
      ),
    );
  }

  async close(): Promise<void> {
    this.#client.disconnect();
  }

  async #claim(side: SideName, decision: Uint8Array, refreshes: boolean): Promise<Found> {
    const key = this.#key(side, sideOf(decision, side));
    const value = Buffer.from(decision);
    const lifeMs = lifetimeMs(this.#times, side);
    const found = await this.#client.setBuffer(key, value, "PX", lifeMs, "NX", "GET");
    if (found === null) return decision;
    if (!isSameDecision(found, decision)) return found;
    if (!refreshes) return decision;
    const next = isOfBeginning(decision) ? value : found;
    const isExtended = await this.#client.eval(EXTEND, 1, key, found, next, lifeMs);
    // Gone in between: as good as never there.
    return isExtended === 1 ? decision : undefined;
  }

  /** Text, because the client finds the server of a key by its text. */
  #key(side: SideName, tuple: Uint8Array): string {
    return `${this.#prefix}${side[0]}${Buffer.from(tuple).toString("base64")}`;
  }
}

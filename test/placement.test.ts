/**
 * Which node gets a packet: the placement by itself, and the kernel's program against a slow twin of it
 * on a device with a queue for each node.
 */
import { fc, test as property } from "@fast-check/vitest";
import { describe, expect, test } from "vitest";
import type { NetworkTables } from "../host/engine/network.ts";
import {
  addNamespace,
  namespaceFile,
  removeNamespace,
  setUpInterface,
} from "../host/io/namespaces.ts";
import { Spreading } from "../host/io/spreading.ts";
import { BUCKET_COUNT } from "../host/io/steering.ts";
import { loadSyscalls } from "../host/io/syscalls.ts";
import { openTun } from "../host/io/tun.ts";
import { ordersOf, Placement, placesOf, rowOf } from "../host/lab/placement.ts";
import { inside, requireLab, uniqueName } from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

const SECRET = new Uint8Array(16).fill(7);

/** A load balancer that keeps its clients' addresses, one that does not, and a NAT gateway. */
const TABLES: NetworkTables = {
  vpcs: [
    { vpc: 0 },
    {
      vpc: 1,
      addresses: [
        { address: "10.0.1.5", service: "web/a" },
        { address: "fd00:1::5", service: "api/a" },
      ],
      routeTables: [
        [{ to: "0.0.0.0/0", service: "nat-1" }],
        [{ to: "10.0.0.0/16", service: "vpc:x" }],
      ],
      subnets: [{ cidr: "10.0.2.0/24", routeTable: 1 }],
    },
  ],
  services: [
    { id: "web/a", kind: "load-balancer", vpc: 1 },
    { id: "web/a/tcp:80", kind: "load-balancer", vpc: 1, targets: [{ address: "10.0.1.10" }] },
    {
      id: "api/a/tcp:80",
      kind: "load-balancer",
      vpc: 1,
      sources: ["fd00:1::5"],
      targets: [{ address: "fd00:1:0::10" }],
    },
    { id: "nat-1", kind: "nat-gateway", vpc: 0, sources: ["203.0.113.1"] },
  ],
};
const DEVICES = [
  { vpc: 1, addresses: ["10.0.1.20"] },
  { vpc: 1, addresses: ["10.0.2.20"] },
  { vpc: 0, addresses: ["198.51.100.1"] },
];

test("places are fronts, sources, targets that answer directly, and what devices lead to", () => {
  const found = placesOf(TABLES, DEVICES).map(({ place, resource }) => {
    const where = "device" in place ? `device ${place.device}` : `${place.vpc} ${place.address}`;
    return `${where}: ${resource}`;
  });
  expect(found.toSorted()).toEqual([
    "0 203.0.113.1: nat-1",
    "1 10.0.1.10: web",
    "1 10.0.1.5: web",
    "1 fd00:1::5: api",
    "device 0: nat-1",
    "device 1: vpc 1",
    "device 2: vpc 0",
  ]);
});

const fleet = fc.record({
  nodes: fc.integer({ min: 2, max: 20 }),
  perResource: fc.integer({ min: 1, max: 5 }),
  resource: fc.string(),
  down: fc.array(fc.nat(19), { maxLength: 4 }),
  next: fc.nat(19),
});

describe("a row", () => {
  property.prop([fleet], { numRuns: 500 })(
    "moves the buckets of the node that dies, and no others",
    ({ nodes, perResource, resource, down, next }) => {
      const size = Math.min(nodes, perResource);
      const spread = { nodes, perResource: size, buckets: BUCKET_COUNT, secret: SECRET };
      const orders = ordersOf(spread, resource);
      const shard = new Set(orders[0]);
      expect(shard.size).toBe(size);
      for (const order of orders) expect(new Set(order)).toEqual(shard);
      const before = rowOf(orders, (node) => !down.includes(node));
      const after = rowOf(orders, (node) => ![...down, next].includes(node));
      for (const [bucket, node] of before.entries()) {
        const isAlone = [...shard].every((one) => [...down, next].includes(one));
        if (node !== next && !isAlone) expect(after[bucket]).toBe(node);
        if (!isAlone) expect(after[bucket]).not.toBe(next);
        expect(shard.has(after[bucket] as number)).toBe(true);
      }
    },
  );

  test("gives every node its share, over many resources", () => {
    const counts = new Map<number, number>();
    for (let resource = 0; resource < 400; resource++) {
      const spread = { nodes: 10, perResource: 3, buckets: BUCKET_COUNT, secret: SECRET };
      for (const node of rowOf(ordersOf(spread, `r${resource}`), () => true)) {
        counts.set(node, (counts.get(node) ?? 0) + 1);
      }
    }
    const fair = (400 * BUCKET_COUNT) / 10;
    expect(counts.size).toBe(10);
    for (const count of counts.values()) expect(Math.abs(count - fair)).toBeLessThan(fair / 4);
  });
});

/** Sends a datagram from each of the ports to each of the addresses; prints what was sent. */
const SENDER = `
import random, socket, sys
random.seed(5)
for n in range(300):
    address = random.choice(sys.argv[1:])
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    port = random.randrange(1, 65536)
    s.connect((address, port))
    s.send(b"%05d" % n)
    print(address, s.getsockname()[1], port)
`;

describe("the kernel", () => {
  test("sends each packet to the node that the placement names", { timeout: 60_000 }, async ({
    skip,
  }) => {
    await requireLab(skip);
    const python = requireTool("python3", skip);
    const system = await loadSyscalls();
    const namespace = uniqueName();
    await addNamespace(namespace);
    const spreading = new Spreading(system);
    try {
      const open = () =>
        openTun(system, {
          name: "fp0",
          namespace: namespaceFile(namespace),
          isMultiQueue: true,
        }).fd;
      const queues = Array.from({ length: 5 }, open);
      const addresses = ["10.0.1.20", "fd00:1::20"];
      await setUpInterface(namespace, { device: "fp0", addresses, mtu: 1500 });
      const spread = { nodes: 5, perResource: 2, buckets: BUCKET_COUNT, secret: SECRET };
      const placement = new Placement(spreading, spread, [{ vpc: 1, addresses }]);
      spreading.steer({ name: "fp0", fd: queues[0] as number }, 1, 0);
      placement.place(TABLES);
      const up = [true, false, true, true, true];
      placement.setUp(up);
      const known: Record<string, string> = { "10.0.1.5": "web", "fd00:1::5": "api" };
      const targets = ["10.0.1.5", "fd00:1::5", "10.0.1.99", "fd00:1::99", "203.0.113.1"];
      const { stdout } = await inside(namespace, [python, "-c", SENDER, ...targets]);
      const expected = new Map<string, number>();
      for (const [n, line] of stdout.trim().split("\n").entries()) {
        const [address = "", source, port] = line.split(" ");
        // Everything else goes by the device, whose default route leads to the gateway.
        const orders = ordersOf(spread, known[address] ?? "nat-1");
        const bucket = ((Number(source) ^ Number(port)) & 63) >> 1;
        const node = rowOf(orders, (one) => up[one] === true)[bucket] as number;
        expected.set(`${n}`.padStart(5, "0"), node);
      }
      const memory = new Uint8Array(70_000);
      const window = system.window(memory);
      const seen = new Map<string, number>();
      for (const [node, fd] of queues.entries()) {
        let bytes = window.read(fd, 0, 66_000);
        while (bytes > 0) {
          seen.set(Buffer.from(memory.subarray(bytes - 5, bytes)).toString(), node);
          bytes = window.read(fd, 0, 66_000);
        }
        system.close(fd);
      }
      for (const name of seen.keys()) if (!expected.has(name)) seen.delete(name);
      expect(expected.size).toBe(300);
      expect(seen).toEqual(expected);
    } finally {
      spreading.close();
      await removeNamespace(namespace);
    }
  });
});

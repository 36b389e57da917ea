/**
 * Network tables against their slow twin, over random worlds of few addresses: what becomes of
 * packets that begin flows, which service makes them, what may be chosen, what is answered and counted.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { eth, type Packet } from "../fixtures/packets.ts";
import type { VerdictName } from "../host/engine/api.ts";
import type { Engine } from "../host/engine/engine.ts";
import type { NetworkService } from "../host/engine/network.ts";
import { type Arrival, type Departure, send } from "./harness.ts";
import { networkEngine, one, usageOf } from "./network.ts";
import { ADDRESSES, ADDRESSES6, Dice, PORTS, randomTables } from "./network-worlds.ts";
import { type Expected, type FirstPacket, NetworkTwin } from "./reference/network.ts";

const FACTOR = Number(process.env.MODEL_RUNS ?? 1);
const RUNS = 60 * FACTOR;
const PACKETS = 200;
interface Sent {
  packet: FirstPacket;
  frame: Packet;
  flags: string;
  isSilent: boolean;
}

/**
 * A packet whose source port nobody else has, so that it belongs to no flow; or one from a target's port
 * in a connection that is not in `used`.
 */
function randomPacket(d: Dice, number: number, used: Set<string>): Sent {
  const isIpv6 = d.oneIn(3);
  const addresses = isIpv6 ? ADDRESSES6 : ADDRESSES;
  const [source, destination] = [d.of(addresses), d.of(addresses)];
  const protocol = d.of([6, 6, 6, 17, 17, isIpv6 ? 58 : 1]);
  const flags = d.of(["S", "S", "S", "A", "SA", "R", "PA"]);
  const df = d.oneIn(2);
  const payload = d.oneIn(5) ? 1250 + d.below(300) : d.below(20);
  const isFragment = !isIpv6 && d.oneIn(12);
  const destinationPort = protocol === 6 || protocol === 17 ? d.of(PORTS) : 0;
  const vpc = 1 + d.below(3);
  // In any VPC: flows may lead from one to another.
  const name = `${source} ${destination} ${destinationPort}`;
  const mayBe = protocol === 6 && flags !== "S" && source !== destination && !used.has(name);
  const isTargets = mayBe && d.oneIn(3);
  if (isTargets) used.add(name);
  const own = isTargets ? 8080 : 20_000 + number;
  const network = isIpv6
    ? eth().ipv6(source, destination)
    : eth().ipv4(source, destination, { df, id: number, moreFragments: isFragment });
  const asks = d.oneIn(2);
  const transport =
    protocol === 6
      ? network.tcp(own, destinationPort, { flags })
      : protocol === 17
        ? network.udp(own, destinationPort)
        : isIpv6
          ? network.icmp6Query(asks ? 128 : 129, own)
          : network.icmpQuery(asks ? 8 : 0, own);
  const frame = transport.payload(payload - (payload % 8));
  return {
    frame,
    flags,
    isSilent: !isIpv6 && !df,
    packet: {
      vpc,
      protocol,
      source,
      sourcePort: own,
      destination,
      destinationPort: destinationPort || (protocol !== 6 && protocol !== 17 && !asks ? own : 0),
      begins: flags === "S",
      asks: protocol !== 6 && protocol !== 17 && asks,
      isLate: !flags.includes("S") && !flags.includes("R"),
      ipBytes: frame.bytes().length - 14,
      isFragment,
    },
  };
}

/** What is expected of a packet that a service may take: any of its choices. */
function expectTaken(
  engine: Engine,
  twin: NetworkTwin,
  sent: Sent,
  service: NetworkService,
  out: Departure,
) {
  const { packet } = sent;
  const targets = twin.targetsOf(service, packet);
  const portOf = ({ port }: { port?: number }) => (packet.destinationPort ? port : undefined);
  const isDenied = ({ address, port }: { address: string; port: number }) =>
    !twin.allowsOut(service, packet.protocol, address, port);
  const ends =
    service.kind === "load-balancer" || targets.length > 0
      ? targets.map(({ address, port = 0 }) => ({
          address,
          port: packet.protocol === 6 || packet.protocol === 17 ? port : packet.destinationPort,
        }))
      : [{ address: packet.destination, port: packet.destinationPort }];
  const sources = (service.sources ?? []).filter(
    (address) => address.includes(":") === packet.source.includes(":"),
  );
  if (out.verdict === "drop.same-endpoint") {
    const isOwn = ends.some(({ address }) => address === packet.source) && sources.length === 0;
    expect(isOwn && service.kind === "load-balancer").toBe(true);
    return;
  }
  if (out.verdict === "drop.security-group") {
    expect(ends.some(isDenied)).toBe(true);
    return;
  }
  expect(out.verdict).toBe("forward");
  const flow = engine.flow(out.flow);
  if (flow === undefined) throw new Error("a packet went out without a flow");
  expect(flow.madeBy).toBe(engine.serviceNumber(service.id));
  const end = ends.find(
    ({ address, port }) =>
      address === flow.translatedService.address && port === flow.translatedService.port,
  );
  expect(end && !isDenied(end), JSON.stringify({ flow, ends, port: portOf({}) })).toBe(true);
  const { address, port } = flow.translatedClient;
  // Own ports are 20,000 and up, each of them free.
  expect(port).toBe(
    packet.protocol === 58 || packet.protocol === 1 ? flow.client.port : packet.sourcePort,
  );
  expect(sources.length > 0 ? sources : [packet.source]).toContain(address);
  expect(out.portOut).toBe(service.vpc);
}

function expectAnswer(sent: Sent, { verdict, service }: Expected, out: Departure) {
  const answers = service !== undefined && service.kind !== "route";
  const isReset = verdict === "drop.no-flow" && answers && sent.packet.protocol === 6;
  const resets = isReset && !sent.flags.includes("R") && !sent.packet.isFragment;
  const told = verdict === "drop.too-large" && service?.isMtuTold === true && !sent.isSilent;
  expect(out.made.map(({ kind }) => kind)).toEqual(resets ? ["rst"] : told ? ["icmp"] : []);
}

const seen = new Map<VerdictName, number>();

test("packets that begin flows meet what the twin says", {
  timeout: 120_000 * FACTOR,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: 0xffffffff }), async (seed) => {
      const d = new Dice(seed);
      const tables = randomTables(d);
      const engine = await networkEngine(tables);
      const twin = new NetworkTwin(tables);
      const dropped = new Map<string, number>();
      const arrivals: Arrival[] = [];
      const departures: Departure[] = [];
      const used = new Set<string>();
      for (let number = 0; number < PACKETS; number++) {
        const sent = randomPacket(d, number, used);
        const out = one(engine, sent.frame, sent.packet.vpc);
        const expected = twin.expect(sent.packet);
        arrivals.push({ frame: sent.frame, port: sent.packet.vpc, timeMs: 1000 });
        departures.push(out);
        seen.set(out.verdict, (seen.get(out.verdict) ?? 0) + 1);
        expectAnswer(sent, expected, out);
        const { verdict, service } = expected;
        if (verdict === "forward") expectTaken(engine, twin, sent, service as NetworkService, out);
        else
          expect(out.verdict, JSON.stringify({ seed, number, ...sent.packet, service })).toBe(
            verdict,
          );
        if (service !== undefined && out.verdict !== "forward") {
          dropped.set(service.id, (dropped.get(service.id) ?? 0) + 1);
        }
      }
      const again = send(await networkEngine(tables), arrivals, d.of([7, 64, 256]));
      const told = ({ verdict, frame, portOut }: Departure) => ({ verdict, frame, portOut });
      expect(again.map(told)).toEqual(departures.map(told));
      for (const { id } of tables.services) {
        expect(usageOf(engine, id).packetsDropped).toBe(dropped.get(id) ?? 0);
      }
    }),
    { numRuns: RUNS, seed: 20260301 },
  );
  const met = ["forward", "no-route", "blackhole", "unintended", "security-group", "no-target"];
  for (const name of [...met, "too-large", "no-flow", "fragment", "same-endpoint"]) {
    const verdict = (name === "forward" ? name : `drop.${name}`) as VerdictName;
    expect(seen.get(verdict) ?? 0, verdict).toBeGreaterThan(20);
  }
});

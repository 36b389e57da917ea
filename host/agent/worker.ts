/**
 * The thread of a VPC's agent. A network namespace belongs to a thread, so this one enters the
 * VPC's with setns(2) before it does anything else, and every socket that it makes lies there: no
 * second process, no trip of the packets through the host's network.
 *
 * Health checks leave from the load balancer's node address and ports 512 to 1023, which source
 * NAT never uses (it has 1024 to 65535), so that a check and a client's flow never meet.
 */

import { closeSync, openSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { addressBytes } from "../address.ts";
import { contains, parseCidr } from "../cidr.ts";
import { DnsServer } from "../dns/server.ts";
import { DnsView } from "../dns/view.ts";
import { FlowplaneError } from "../errors.ts";
import { Checker } from "../health/checker.ts";
import { type Check, type CheckResult, probe } from "../health/probe.ts";
import { CLONE_NEWNET, loadSyscalls } from "../io/syscalls.ts";
import type { AgentStart, FromAgent, ToAgent } from "./messages.ts";

const PORT_FIRST = 512;
const PORT_COUNT = 512;
/** Ports that are tried when one is still held by a check before. */
const PORT_TRIES_MAX = 16;

const start = workerData as AgentStart;
const say = (message: FromAgent) => parentPort?.postMessage(message);

await enter(start.namespace);
const places = start.places.map(({ cidr, zone }) => ({ range: parseCidr(cidr), zone }));
const forwarding = new Map<number, (response: Uint8Array | undefined) => void>();
let nextId = 1;
let nextPort = 0;

const servers = await Promise.all(start.dnsAddresses.map(listen));
const checker = new Checker({
  probe: probeFromNode,
  onResult: (key, result) => say({ kind: "result", key, result }),
});
checker.setPlans(start.plans);
parentPort?.on("message", take);
say({ kind: "ready" });

async function enter(namespace: string): Promise<void> {
  const system = await loadSyscalls();
  const file = openSync(namespace, "r");
  const result = system.setns(file, CLONE_NEWNET);
  closeSync(file);
  if (result < 0) throw new FlowplaneError(`${namespace}: cannot be entered (error ${-result})`);
}

function listen(address: string): Promise<DnsServer> {
  return DnsServer.listen({
    address,
    port: start.dnsPort,
    view: new DnsView(start.zones),
    zoneOf: (client) => {
      const bytes = addressBytes(client);
      return places.find(({ range }) => contains(range, bytes))?.zone;
    },
    forward: start.isForwarding ? forward : undefined,
  });
}

/** Another resolver is reached from the host's network, where the main thread is. */
function forward(message: Uint8Array): Promise<Uint8Array | undefined> {
  const id = nextId++;
  return new Promise((resolve) => {
    forwarding.set(id, resolve);
    say({ kind: "forward", id, message });
  });
}

async function probeFromNode(check: Check): Promise<CheckResult> {
  const { source } = check;
  if (source === undefined) return probe(check);
  for (let tries = 1; ; tries++) {
    const port = PORT_FIRST + (nextPort++ % PORT_COUNT);
    const result = await probe({ ...check, source: { ...source, port } });
    const isOurs = !result.isHealthy && /EADDR(INUSE|NOTAVAIL)/.test(result.description);
    if (!isOurs || tries === PORT_TRIES_MAX) return result;
  }
}

function take(message: ToAgent): void {
  switch (message.kind) {
    case "zones": {
      const view = new DnsView(message.zones);
      for (const server of servers) server.view = view;
      return;
    }
    case "plans":
      checker.setPlans(message.plans);
      return;
    case "forwarded":
      forwarding.get(message.id)?.(message.response);
      forwarding.delete(message.id);
      return;
    case "counters": {
      const counters = { queries: 0, responses: 0, truncated: 0, forwarded: 0, ignored: 0 };
      for (const server of servers) {
        for (const key of Object.keys(counters) as (keyof typeof counters)[]) {
          counters[key] += server.counters[key];
        }
      }
      say({ kind: "counters", id: message.id, counters });
      return;
    }
    case "stop":
      checker.stop();
      void Promise.all(servers.map((server) => server.close())).then(() => parentPort?.close());
  }
}

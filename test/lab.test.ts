/**
 * Labs with real programs: a client and a server in namespaces of their own, the engine between
 * them; then the lab's life: clashes, kills, devices that go away.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { addNamespace, namespaceExists, removeNamespace } from "../host/io/namespaces.ts";
import { loadSyscalls } from "../host/io/syscalls.ts";
import { Ring } from "../host/io/uring.ts";
import { raise, takeDown } from "../host/lab/lab.ts";
import { type LabPlan, PLAN_DEFAULTS } from "../host/lab/plan.ts";
import { allStates, readState } from "../host/lab/state.ts";
import {
  inside,
  listening,
  oneTarget,
  requireLab,
  type Scene,
  scene,
  uniqueName,
  until,
} from "./lab-harness.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));

const LISTENER = "10.0.1.50";
const LISTENER6 = "fd00:1::50";
const SCHED_RR = 2;

/** Kernel's numbers of this process's threads that are workers of labs. */
function workerThreads(): string[] {
  return readdirSync("/proc/self/task").filter((thread) =>
    readFileSync(`/proc/self/task/${thread}/comm`, "utf8").startsWith("flowplane"),
  );
}

/** How many rings this process has; Node.js has some of its own. */
function rings(): number {
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // The directory's own.
    }
  });
  return links.filter((link) => link === "anon_inode:[io_uring]").length;
}

/** Scheduling class of a thread of this process: field 41 of proc(5)'s stat. */
function policyOf(thread: string): number {
  const path = thread === "self" ? "/proc/thread-self/stat" : `/proc/self/task/${thread}/stat`;
  const stat = readFileSync(path, "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[38]);
}

describe("through the engine", () => {
  test("ping reaches the target, in both families", async ({ skip }) => {
    requireTool("ping", skip);
    await scene(async (s) => {
      const name = uniqueName();
      await s.lab(oneTarget(name));
      for (const address of [LISTENER, LISTENER6]) {
        const { stdout } = await inside(`${name}-c`, ["ping", "-c3", "-i0.2", "-W5", address]);
        expect(stdout).toContain("3 packets transmitted, 3 received");
      }
    });
  });

  test("curl fetches 20 MB from nginx, byte for byte", async ({ skip }) => {
    const nginx = requireTool("nginx", skip);
    requireTool("curl", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await s.lab(oneTarget(name));
      const random = seeded(7);
      const body = Buffer.from(
        Uint32Array.from({ length: 5 << 20 }, () => random() * 2 ** 32).buffer,
      );
      writeFileSync(join(s.folder, "body"), body);
      const config = join(s.folder, "nginx.conf");
      writeFileSync(
        config,
        `daemon off; pid ${s.folder}/pid; error_log ${s.folder}/error.log; user root;
         events {} http { access_log off; server { listen 80; listen [::]:80; root ${s.folder}; } }`,
      );
      s.start(`${name}-s`, [nginx, "-c", config]);
      await listening(`${name}-s`, 80);
      for (const host of [LISTENER, `[${LISTENER6}]`]) {
        const out = join(s.folder, "out");
        const got = await inside(`${name}-c`, ["curl", "-sSf", "-o", out, `http://${host}/body`]);
        expect(got).toMatchObject({ status: 0, stderr: "" });
        const { stdout } = await inside(`${name}-c`, ["sha256sum", out]);
        expect(stdout.split(" ")[0]).toBe(createHash("sha256").update(body).digest("hex"));
      }
      const [devices = []] = await lab.plane.all("devices");
      // Super-packets: 40 MB came in far fewer frames than segments of 1,460 bytes would be.
      const server = devices[1];
      expect(lab.offload).not.toBe("none");
      expect((server?.readBytes ?? 0) / (server?.readFrames ?? 1)).toBeGreaterThan(4000);
    });
  });

  test("iperf3 runs both ways over TCP and UDP, in both families", async ({ skip }) => {
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await s.lab(oneTarget(name));
      for (const address of [LISTENER, LISTENER6]) {
        for (const way of [[], ["-R"], ["-u", "-b", "20M"], ["-u", "-b", "20M", "-R"]]) {
          const { end } = await iperf(s, name, ["-c", address, ...way]);
          const received = end.sum_received ?? end.sum;
          expect(received?.bytes).toBeGreaterThan(1_000_000);
          if (end.sum) expect(end.sum.lost_packets).toBeLessThan(end.sum.packets / 10);
        }
      }
      const [counters] = await lab.plane.all("counters");
      const { forward = 0, ...others } = counters?.verdicts ?? {};
      expect(forward).toBeGreaterThan(1000);
      expect(Object.values(others).every((count) => count === 0)).toBe(true);
      expect(counters?.unreachable).toBe(0);
    });
  });

  test("workers go before ordinary threads where that is wanted and a core is left for those", async () => {
    await scene(async (s) => {
      const cores = availableParallelism();
      // Whether this thread may have it is what chrt finds out.
      const isGranted =
        spawnSync("chrt", ["-r", "1", "true"]).status === 0 && policyOf("self") === 0;
      for (const [change, isAsked] of [
        [{}, false],
        [{ priority: "realtime" }, cores > 1],
        [{ priority: "realtime", workers: cores + 1 }, false],
      ] as const) {
        const lab = await s.lab({ ...oneTarget(uniqueName()), ...change });
        const policies = workerThreads().map(policyOf);
        expect(policies).toHaveLength(lab.plan.workers);
        const isRealTime = isAsked && isGranted;
        const [policy, said] = isRealTime ? [SCHED_RR, "realtime"] : [policyOf("self"), "normal"];
        for (const one of policies) expect(one).toBe(policy);
        for (const one of await lab.plane.all("priority")) expect(one).toBe(said);
        await lab.stop();
      }
    });
  });

  test("packets go by a ring where there is one, and by calls where that is wanted", async ({
    skip,
  }) => {
    requireTool("iperf3", skip);
    const system = await loadSyscalls();
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 2 }).buffer);
    const fd = system.eventfd();
    const ring = Ring.open(system, memory, 0, fd);
    ring?.close();
    system.close(fd);
    for (const [io, is] of [
      ["ring", ring === undefined ? "calls" : "ring"],
      ["calls", "calls"],
    ] as const) {
      await scene(async (s) => {
        const name = uniqueName();
        const before = rings();
        const lab = await s.lab({ ...oneTarget(name), io });
        expect(await lab.plane.all("io")).toEqual([is]);
        for (const way of [[], ["-R"], ["-u", "-b", "20M"]]) {
          const { end } = await iperf(s, name, ["-c", LISTENER, ...way]);
          expect((end.sum_received ?? end.sum)?.bytes).toBeGreaterThan(1_000_000);
        }
        await lab.stop();
        expect(rings()).toBe(before);
      });
    }
  });

  test.for([
    ["offloads can be left off", "none", 0, 1512],
    ["a kernel without those of UDP gives the others", "tcp", 4000, 65_547],
  ] as const)("%s", async ([, offload, least, most], { skip }) => {
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await s.lab({ ...oneTarget(name), offload });
      expect(lab.offload).toBe(offload);
      const { end } = await iperf(s, name, ["-c", LISTENER]);
      expect(end.sum_received?.bytes).toBeGreaterThan(1_000_000);
      const [devices = []] = await lab.plane.all("devices");
      const { readBytes = 0, readFrames = 0 } = devices[0] ?? {};
      expect(readBytes / readFrames).toBeGreaterThan(least);
      expect(readBytes / readFrames).toBeLessThanOrEqual(most);
      const datagrams = await iperf(s, name, ["-c", LISTENER, "-u", "-b", "20M"]);
      expect(datagrams.end.sum?.bytes).toBeGreaterThan(1_000_000);
      expect(datagrams.end.sum?.lost_packets).toBeLessThan((datagrams.end.sum?.packets ?? 0) / 10);
    });
  });
});

describe("a capture of a lab", () => {
  test("has both sides of everything, every checksum right, and tshark reads it", async ({
    skip,
  }) => {
    const tshark = requireTool("tshark", skip);
    requireTool("iperf3", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const captureFile = join(s.folder, "lab.pcapng");
      const lab = await s.lab({ ...oneTarget(name), captureFile, workers: 2 });
      for (const words of [[LISTENER], [LISTENER6], [LISTENER, "-u"]]) {
        await iperf(s, name, ["-b", "20M", "-c", ...words]);
      }
      const [one, two] = await lab.plane.all("devices");
      await lab.stop();
      const entered = [...(one ?? []), ...(two ?? [])].reduce((n, d) => n + d.readFrames, 0);
      const fields = ["frame.interface_id", "tcp.checksum.status", "udp.checksum.status"];
      const checks = ["ip", "tcp", "udp"].flatMap((layer) => [
        "-o",
        `${layer}.check_checksum:TRUE`,
      ]);
      const words = ["-r", captureFile, ...checks, "-T", "fields", "-E", "separator=,"];
      const text = execFileSync(tshark, [...words, ...fields.flatMap((field) => ["-e", field])], {
        encoding: "utf8",
        maxBuffer: 1 << 26,
        timeout: 60_000,
      });
      const rows = text.trim().split("\n");
      expect(new Set(rows.map((row) => row.split(",")[0]))).toEqual(new Set(["0", "1"]));
      const wrong = rows.filter((row) =>
        row
          .split(",")
          .slice(1)
          .some((status) => status === "0"),
      );
      expect(wrong).toEqual([]);
      // Datagrams may leave merged, so there are at most twice as many records as frames came in.
      expect(rows.length).toBeGreaterThan(entered);
      expect(rows.length).toBeLessThanOrEqual(2 * entered);
    });
  });

  test("that cannot be written is refused, and nothing is left", async () => {
    const name = uniqueName();
    const plan = { ...PLAN_DEFAULTS, name, ...oneTarget(name), captureFile: "/nowhere/lab.pcapng" };
    await expect(raise(plan)).rejects.toThrow("--capture /nowhere/lab.pcapng: ENOENT");
    expect(namespaceExists(`${name}-c`)).toBe(false);
  });
});

describe("several workers", () => {
  test("share the flows and nothing else: none is lost between them", async ({ skip }) => {
    requireTool("iperf3", skip);
    requireTool("ping", skip);
    await scene(async (s) => {
      const name = uniqueName();
      const lab = await s.lab({ ...oneTarget(name), workers: 2 });
      for (const address of [LISTENER, LISTENER6]) {
        for (const way of [["-P8"], ["-P8", "-R"], ["-P8", "-u", "-b1M"]]) {
          await iperf(s, name, ["-c", address, ...way]);
        }
        const { stdout } = await inside(`${name}-c`, ["ping", "-c2", "-i0.2", "-W5", address]);
        expect(stdout).toContain("2 received");
        // Nobody listens there: the port unreachable of ICMP must find the flow that it quotes.
        const closed = [
          "bash",
          "-c",
          `for n in 1 2 3 4; do echo > /dev/udp/${address}/$((9000 + n)); done`,
        ];
        await inside(`${name}-c`, closed);
      }
      const counters = await lab.plane.all("counters");
      for (const { verdicts, flows } of counters) {
        const { forward, ...others } = verdicts;
        expect(forward).toBeGreaterThan(100);
        expect(flows.tcp).toBeGreaterThan(4);
        expect(Object.entries(others).filter(([, count]) => count > 0)).toEqual([]);
      }
    });
  });
});

/**
 * Runs iperf3 from the client to a server of its own: one that serves twice closes its listener in
 * between, and resets whoever calls just then.
 */
async function iperf(s: Scene, name: string, words: readonly string[]): Promise<IperfResult> {
  const server = s.start(`${name}-s`, ["iperf3", "-s", "-1"]);
  await listening(`${name}-s`, 5201);
  const { stdout } = await inside(`${name}-c`, ["iperf3", "-t", "1", "-J", ...words]);
  await until("the server has ended", () => server.exitCode !== null);
  const result = JSON.parse(stdout) as IperfResult;
  expect(result.error).toBeUndefined();
  return result;
}

interface IperfResult {
  error?: string;
  end: {
    sum_received?: { bytes: number };
    sum?: { bytes: number; packets: number; lost_packets: number };
  };
}

describe("a lab's life", () => {
  test("nothing is left after it", async () => {
    const name = uniqueName();
    await scene(async (s) => {
      const lab = await s.lab({ ...oneTarget(name), name });
      expect(namespaceExists(`${name}-c`)).toBe(true);
      expect(readState(name)?.namespaces).toEqual([`${name}-c`, `${name}-s`]);
      await Promise.all([lab.stop(), lab.stop()]);
    });
    expect(namespaceExists(`${name}-c`)).toBe(false);
    expect(allStates().filter((state) => state.name === name)).toEqual([]);
  });

  test("two stand side by side", async ({ skip }) => {
    requireTool("ping", skip);
    await scene(async (s) => {
      const names = [uniqueName(), uniqueName()];
      await Promise.all(names.map((name) => s.lab(oneTarget(name))));
      for (const name of names) {
        const { status } = await inside(`${name}-c`, ["ping", "-c1", "-W5", LISTENER]);
        expect(status).toBe(0);
      }
    });
  });

  test("a namespace that somebody else has is refused and stays", async () => {
    const name = uniqueName();
    await addNamespace(`${name}-s`);
    try {
      const plan = { ...PLAN_DEFAULTS, name, ...oneTarget(name) };
      await expect(raise(plan)).rejects.toThrow(`namespace ${name}-s exists`);
      expect(namespaceExists(`${name}-s`)).toBe(true);
      expect(namespaceExists(`${name}-c`)).toBe(false);
      expect(readState(name)).toBeUndefined();
    } finally {
      await removeNamespace(`${name}-s`);
    }
  });

  test("a second one of the same name is refused", async () => {
    await scene(async (s) => {
      const name = uniqueName();
      await s.lab({ ...oneTarget(name), name });
      const again = { ...PLAN_DEFAULTS, name, ...oneTarget(uniqueName()) };
      await expect(raise(again)).rejects.toThrow(`lab ${name}: is up already`);
    });
  });

  test("what fails half-way leaves nothing", async () => {
    const name = uniqueName();
    const plan = { ...PLAN_DEFAULTS, name, ...oneTarget(name) };
    const broken = { ...plan, services: [{ sourceAddresses: ["10.0.2"] }] };
    await expect(raise(broken)).rejects.toThrow("sourceAddresses[0]");
    expect(namespaceExists(`${name}-c`)).toBe(false);
    expect(readState(name)).toBeUndefined();
  });

  test("after a kill, the next one and `down` remove what is left", async () => {
    const name = uniqueName();
    const plan = { ...PLAN_DEFAULTS, name, ...oneTarget(name) };
    for (const removes of ["raise", "takeDown"] as const) {
      await killedLab(plan);
      expect(namespaceExists(`${name}-c`)).toBe(true);
      if (removes === "raise") await (await raise(plan)).stop();
      else expect(await takeDown(name)).toBe(true);
      expect(namespaceExists(`${name}-c`)).toBe(false);
      expect(readState(name)).toBeUndefined();
    }
    expect(await takeDown(name)).toBe(false);
  });

  test("a device that is deleted is lost, the others go on", async () => {
    await scene(async (s) => {
      const name = uniqueName();
      const plan = oneTarget(name);
      const spare = { namespace: `${name}-x`, port: 0, addresses: ["10.0.1.11"], mtu: 1500 };
      const lab = await s.lab({ ...plan, hosts: [...plan.hosts, spare] });
      const gone: string[] = [];
      lab.plane.onGone = (device) => gone.push(device);
      await inside(`${name}-x`, ["ip", "link", "delete", "fp0"]);
      await until("the loss is seen", () => gone.length > 0);
      expect(gone).toEqual([`${name}-x/fp0`]);
      const { status } = await inside(`${name}-c`, ["ping", "-c1", "-W5", LISTENER]);
      expect(status).toBe(0);
      const [devices = []] = await lab.plane.all("devices");
      expect(devices.map(({ isGone }) => isGone)).toEqual([false, false, true]);
    });
  });
});

/** A lab whose process is killed as soon as it is up. */
async function killedLab(plan: LabPlan): Promise<void> {
  const module = new URL("../host/lab/lab.ts", import.meta.url).href;
  const program = `
    const { raise } = await import(${JSON.stringify(module)});
    await raise(${JSON.stringify(plan)});
    process.stdout.write("up");`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
  let told = "";
  child.stderr.on("data", (text) => {
    told += text;
  });
  const isUp = new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", () => reject(new Error(`the lab did not come up: ${told}`)));
  });
  await isUp;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
}

/**
 * Memory of tables: where its pages come from and when they are touched. The kernel itself says which
 * pages a process has (smaps); where it has no huge ones to give, that part is skipped with its word.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, realpathSync } from "node:fs";
import { describe, expect, test, vi } from "vitest";
import { seeded } from "../fixtures/bytes.ts";
import { eth } from "../fixtures/packets.ts";
import { createCompactEngine } from "../host/engine/compact.ts";
import { createEngine, type Engine } from "../host/engine/engine.ts";
import { hugePages } from "../host/io/pages.ts";
import { nat } from "./cases.ts";
import { type Arrival, send } from "./harness.ts";
import { ROOT } from "./live-world.ts";

const SEED = new Uint8Array(16).fill(3);
const FLOWS = 2_000_000;
const MIB = 2 ** 20;
const COMPACT = { firstAddress: "192.0.2.0", addressCount: 40, seed: SEED };

/** A figure of the kernel's summary of all mappings of this process, in bytes. */
function mapped(name: string): number {
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text);
  if (!found) throw new Error(`smaps_rollup has no ${name}`);
  return Number(found[1]) * 1024;
}

/** Bytes of address space that huge pages were asked for. */
function advised(): number {
  const mappings = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  return mappings
    .filter((text) => /^VmFlags:.*\bhg\b/m.test(text))
    .reduce((sum, text) => {
      const [start = "", end = ""] = (text.split(" ")[0] as string).split("-");
      return sum + Number.parseInt(end, 16) - Number.parseInt(start, 16);
    }, 0);
}

/** How much more memory the process has after making something, which lives on until then. */
async function grownBy<T>(name: string, make: () => Promise<T>): Promise<[number, T]> {
  const before = mapped(name);
  const made = await make();
  return [mapped(name) - before, made];
}

describe.skipIf(process.platform !== "linux")("pages", () => {
  test("of large tables come with the flows, or at creation", async () => {
    const options = { flowCountMax: FLOWS, seed: SEED, warmUp: false };
    const [lazy, plain] = await grownBy("Anonymous", () => createEngine(options));
    expect(lazy).toBeLessThan(plain.flowTableBytes / 4);
    const [eager, touched] = await grownBy("Anonymous", () => {
      return createEngine({ ...options, touchTables: true });
    });
    expect(eager).toBeGreaterThan(touched.flowTableBytes);
    const [lazier, gateway] = await grownBy("Anonymous", () => createCompactEngine(COMPACT));
    expect(lazier).toBeLessThan(gateway.tableBytes / 4);
    const [eagerer] = await grownBy("Anonymous", () => {
      return createCompactEngine({ ...COMPACT, touchTables: true });
    });
    expect(eagerer).toBeGreaterThan(gateway.tableBytes);
  });

  test("are not touched where there is too little memory, which is said", async () => {
    const free = vi.spyOn(process, "availableMemory").mockReturnValue(2 ** 30);
    try {
      const [grown] = await grownBy("Anonymous", async () => {
        const large = { flowCountMax: 50_000_000, seed: SEED, warmUp: false, touchTables: true };
        await expect(createEngine(large)).rejects.toThrow(
          /^flowCountMax, flow6CountMax: tables of \d+ bytes, and 1073741824 bytes .* free$/,
        );
        const wide = {
          ...COMPACT,
          firstAddress: "10.0.0.0",
          addressCount: 1000,
          touchTables: true,
        };
        await expect(createCompactEngine(wide)).rejects.toThrow(
          /^addressCount: tables of \d+ bytes, and 1073741824 bytes .* free$/,
        );
      });
      expect(grown).toBeLessThan(256 * MIB);
    } finally {
      free.mockRestore();
    }
  });

  test("are huge where the kernel has them to give", async ({ skip }) => {
    const pages = await hugePages();
    skip(!pages.isHuge, pages.word);
    const before = advised();
    const options = { flowCountMax: FLOWS, seed: SEED, warmUp: false, touchTables: true };
    const [huge, engine] = await grownBy("AnonHugePages", () => {
      return createEngine({ ...options, prepareMemory: pages.prepare });
    });
    expect(pages.word).toBe("huge pages");
    expect(advised() - before).toBeGreaterThanOrEqual(2 ** 32 - 2 * MIB);
    // All but the ends of the table; a kernel whose memory is in pieces gives fewer.
    expect(huge).toBeGreaterThan(engine.flowTableBytes / 2);
  });
});

const ENGINES: [string, () => Promise<Engine>][] = [
  ["plain", () => createEngine({ seed: SEED })],
  ["huge", async () => createEngine({ seed: SEED, prepareMemory: (await hugePages()).prepare })],
  ["touched", () => createEngine({ seed: SEED, touchTables: true })],
];

test("whatever the pages, the output is the same", async () => {
  const random = seeded(11);
  const arrivals = Array.from({ length: 3000 }, (_, index): Arrival => {
    const from = `10.0.${random() & 7}.${random() & 255}`;
    return {
      frame: eth()
        .ipv4(from, "192.0.2.9")
        .udp(1024 + (random() & 1023), 53),
      timeMs: index,
    };
  });
  const { services, ports } = nat();
  const results: unknown[] = [];
  for (const [name, make] of ENGINES) {
    const engine = await make();
    for (const [index, service] of services.entries()) engine.setService(index, service);
    for (const [index, port] of ports.entries()) engine.setPort(index, port);
    const out = send(engine, arrivals);
    expect(out.filter(({ verdict }) => verdict === "forward").length, name).toBe(arrivals.length);
    results.push([out, [...engine.flows()], engine.digest()]);
  }
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});

test("the memory is handed over once, before it grows", async () => {
  const seen: number[] = [];
  const prepareMemory = (memory: WebAssembly.Memory) => seen.push(memory.buffer.byteLength);
  const engine = await createEngine({ flowCountMax: FLOWS, prepareMemory });
  expect(seen).toHaveLength(1);
  expect(seen[0]).toBeLessThan(16 * MIB);
  expect(engine.memory.buffer.byteLength).toBeGreaterThan(engine.flowTableBytes);
  await createCompactEngine({ ...COMPACT, prepareMemory });
  expect(seen).toHaveLength(2);
});

test("options that are none are refused", async () => {
  const wrong = (options: object) => createEngine(options);
  await expect(wrong({ prepareMemory: "huge" })).rejects.toThrow(
    'prepareMemory: "huge" is not a function',
  );
  await expect(wrong({ touchTables: 1 })).rejects.toThrow("touchTables: 1 is not true or false");
});

test("without koffi pages are plain, and the word says why", ({ skip }) => {
  skip(process.getuid?.() !== 0, "needs root, to hide a package");
  const koffi = realpathSync(`${ROOT}node_modules/koffi`);
  const script = `
    import { hugePages } from "${ROOT}host/io/pages.ts";
    import { createEngine } from "${ROOT}host/engine/engine.ts";
    const pages = await hugePages();
    const engine = await createEngine({ prepareMemory: pages.prepare, warmUp: false });
    console.log(JSON.stringify([pages.isHuge, pages.word, engine.flowTableBytes > 0]));`;
  const hide = 'mount -t tmpfs none "$1" && shift && exec "$@"';
  const words = ["-m", "sh", "-c", hide, "sh", koffi, process.execPath];
  const run = spawnSync("unshare", [...words, "--input-type=module-typescript", "-e", script], {
    encoding: "utf8",
    timeout: 30_000,
  });
  expect(run.stderr).toBe("");
  const [isHuge, word, works] = JSON.parse(run.stdout) as [boolean, string, boolean];
  expect(isHuge).toBe(false);
  expect(word).toMatch(/^plain pages: /);
  expect(works).toBe(true);
});

/**
 * What the live benchmark sends through a way, and what it reads of it: iperf3's streams, datagrams, round
 * trips and long streams of c/traffic.c, counts and CPU time of the engine.
 */
import { compiled } from "./programs.ts";
import { IPERF_PORT, run, start, type Way } from "./ways.ts";

const PORT = "5202";
const UDP_SECONDS = 1.5;
const PROXY_SECONDS = "0.6";
const ASK_SECONDS = "1.5";

/** Takes the name of a figure and its value. */
export type Note = (figure: string, value: number) => void;

export async function cpuOf({ lab }: Way): Promise<{ user: number; system: number }> {
  const all = (await lab?.plane.all("cpu")) ?? [];
  const sum = (pick: (one: (typeof all)[0]) => number) => all.reduce((s, one) => s + pick(one), 0);
  return { user: sum((one) => one.userMicros) / 1e6, system: sum((one) => one.systemMicros) / 1e6 };
}

/** Runs iperf3 through a way; returns Gbit/s received. */
export async function iperf(
  way: Way,
  seconds: string,
  words: readonly string[] = [],
): Promise<number> {
  const server = start(way.server, ["iperf3", "-s", "-1", "-p", IPERF_PORT]);
  try {
    const isListening = async () => {
      const found = await run(way.server, ["ss", "-Hltn", `sport = :${IPERF_PORT}`]);
      return found.trim() !== "";
    };
    while (!(await isListening())) await new Promise((resolve) => setTimeout(resolve, 20));
    const all = ["iperf3", "-c", way.address, "-p", way.iperfPort, "-J", "-t", seconds];
    const text = await run(way.client, [...all, ...words]);
    const { end } = JSON.parse(text) as { end: { sum_received: { bits_per_second: number } } };
    return end.sum_received.bits_per_second / 1e9;
  } finally {
    server.kill("SIGKILL");
  }
}

/** Starts the program's receiving half and waits until it is ready. */
async function withServer<T>(
  way: Way,
  words: string[],
  part: (said: () => string) => Promise<T>,
): Promise<T> {
  const server = start(way.server, [compiled("traffic"), ...words]);
  try {
    let said = "";
    server.stdout?.on("data", (text) => {
      said += text;
    });
    while (!said.includes("ready")) {
      if (server.exitCode !== null) throw new Error(`traffic ${words.join(" ")}: ended at once`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return await part(() => said.replace("ready", "").trim());
  } finally {
    server.kill("SIGKILL");
  }
}

export async function datagrams(way: Way, note: Note): Promise<void> {
  await withServer(way, ["udp-receive", PORT, "10"], async (said) => {
    const sent = await run(way.client, [
      compiled("traffic"),
      "udp-send",
      way.address,
      PORT,
      `${UDP_SECONDS}`,
    ]);
    while (said() === "") await new Promise((resolve) => setTimeout(resolve, 50));
    note("received kpps", Number(said()) / UDP_SECONDS / 1000);
    note("offered kpps", Number(sent) / UDP_SECONDS / 1000);
  });
}

/** Round trips or new connections, one after the other; the program says their quantiles. */
export async function times(way: Way, what: "ask" | "connect", note: Note): Promise<void> {
  await withServer(way, ["echo", PORT], async () => {
    const said = await run(way.client, [compiled("traffic"), what, way.address, PORT, ASK_SECONDS]);
    const [, p50 = 0, p99 = 0] = said.trim().split(" ").map(Number);
    note("p50 us", p50);
    note("p99 us", p99);
  });
}

/** One long stream; whether it begins with a header is what the server says. */
export async function proxied(way: Way, note: Note): Promise<void> {
  await withServer(way, ["stream-receive", PORT], async (said) => {
    await run(way.client, [compiled("traffic"), "stream-send", way.address, PORT, PROXY_SECONDS]);
    while (said() === "") await new Promise((resolve) => setTimeout(resolve, 10));
    const [rate = 0, hasHeader = 0] = said().split(" ").map(Number);
    note("MiB/s", rate);
    note("began with a header", hasHeader);
  });
}

/** What the engine has read from its devices. */
export async function readBy({ lab }: Way): Promise<{ frames: number; bytes: number }> {
  const devices = ((await lab?.plane.all("devices")) ?? []).flat();
  const busiest = devices.sort((a, b) => b.readBytes - a.readBytes)[0];
  return { frames: busiest?.readFrames ?? 0, bytes: busiest?.readBytes ?? 0 };
}

export async function dropsOf({ lab }: Way): Promise<number> {
  const all = (await lab?.plane.all("counters")) ?? [];
  const drops = all.map(({ verdicts }) =>
    Object.entries(verdicts).reduce(
      (sum, [name, n]) => sum + (name.startsWith("drop.") ? n : 0),
      0,
    ),
  );
  return drops.reduce((sum, one) => sum + one, 0);
}

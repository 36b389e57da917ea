/** Real programs in living labs: what changes around their connections does not touch them. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { chromiumOptions } from "./chromium.ts";
import { inside, listening, requireLab } from "./lab-harness.ts";
import { closers, endWorlds, ROOT, World } from "./live-world.ts";
import { requireTool } from "./setup/tools.ts";

beforeEach(({ skip }) => requireLab(skip));
afterEach(endWorlds);

/** Runs a program in a host of the world until the test ends. */
function start(w: World, host: string, words: string[]): void {
  const all = ["netns", "exec", w.space(host), ...words];
  const child = spawn("ip", all, { cwd: ROOT, stdio: "ignore" });
  closers.push(() => child.kill("SIGKILL"));
}

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "flowplane-live-"));
  closers.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

test("sixty new tables do not lose a datagram of another flow", { timeout: 240_000 }, async ({
  skip,
}) => {
  const iperf = requireTool("iperf3", skip);
  const w = await World.up("nlb");
  start(w, "stranger", [iperf, "-s"]);
  await listening(w.space("stranger"), 5201);
  // 1,250 datagrams a second.
  const words = [iperf, "-c", "10.0.2.20", "-u", "-b", "5M", "-l", "500", "-t", "5", "-J"];
  const measured = inside(w.space("client"), words);
  let isDone = false;
  void measured.finally(() => {
    isDone = true;
  });
  let loads = 0;
  for (; loads < 60 || !isDone; loads++) {
    const listener = { load_balancer: "web", protocol: "TCP", port: 80, target_group: "web" };
    await w.say("weight", { ...listener, weight: 1 + (loads % 9) });
  }
  const { end } = JSON.parse((await measured).stdout) as {
    end: { sum: { packets: number; lost_packets: number } };
  };
  expect(loads).toBeGreaterThanOrEqual(60);
  expect(end.sum.packets).toBeGreaterThan(5000);
  expect(end.sum.lost_packets).toBe(0);
});

test("HAProxy that wants PROXY headers is healthy, a server that does not is not", {
  timeout: 240_000,
}, async ({ skip }) => {
  const haproxy = requireTool("haproxy", skip);
  const proxied: [string, string] = [
    "preserve_client_ip.enabled: true",
    "proxy_protocol_v2.enabled: true",
  ];
  const w = await World.up("nlb", [proxied]);
  const file = join(folder(), "haproxy.cfg");
  writeFileSync(
    file,
    `defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s
frontend f\n bind :8080 accept-proxy
 http-request return status 200 content-type text/plain lf-string "saw %[src]"\n`,
  );
  for (const host of ["web-1", "web-3"]) start(w, host, [haproxy, "-db", "-q", "-f", file]);
  await w.serve("web-2", false);
  await w.healthy(2);
  expect(await w.curl("client", "http://10.0.1.5/")).toBe("saw 10.0.1.20");
  const { targets } = await w.live.snapshot();
  const plain = targets.find(({ address }) => address === "10.0.1.11");
  expect(plain?.state).not.toBe("healthy");
  expect(plain?.description).toMatch(/^Health checks failed/);
});

test("a file system is found by its name in the caller's zone, on port 2049", {
  timeout: 240_000,
}, async ({ skip }) => {
  for (const tool of ["curl", "dig"] as const) requireTool(tool, skip);
  const files = `mount_targets:
  fsmt-a: { subnet: main-a, address: 10.0.1.60, file_system: fs-01234567, forward: files }
  fsmt-b: { subnet: main-b, address: 10.0.2.60, file_system: fs-01234567, forward: files }

lab:
`;
  const group = `target_groups:
  files:
    protocol: TCP
    port: 2049
    vpc: main
    target_type: ip
    targets: [{ address: 10.0.1.10 }, { address: 10.0.2.10 }]
`;
  const w = await World.up("nlb", [
    ["\nlab:\n", `\n${files}`],
    ["target_groups:\n", group],
  ]);
  const server = [process.execPath, "fixtures/labs/whoami.ts", "files", "2049"];
  for (const host of ["web-1", "web-3"]) {
    start(w, host, server);
    await listening(w.space(host), 2049);
  }
  const name = "fs-01234567.efs.us-east-1.amazonaws.com";
  expect(await w.dig("client", name)).toBe("10.0.1.60");
  expect(await w.dig("stranger", name)).toBe("10.0.2.60");
  expect(await w.dig("client", `us-east-1b.${name}`)).toBe("10.0.2.60");
  // Servers see the mount target, wherever the caller is.
  expect(await w.curl("client", `http://${name}:2049/`)).toBe("files saw 10.0.1.60");
  expect(await w.curl("stranger", `http://${name}:2049/`)).toBe("files saw 10.0.2.60");
});

test("a server that speaks first is heard", { timeout: 240_000 }, async () => {
  const w = await World.up("nlb");
  const server = `require("node:net").createServer((socket) => {
    socket.on("error", () => {}).write("SSH-2.0-lab\\r\\n");
    socket.on("data", (data) => socket.end("you said " + data));
  }).listen(8080);`;
  for (const host of ["web-1", "web-2", "web-3"]) {
    start(w, host, [process.execPath, "-e", server]);
    await listening(w.space(host), 8080);
  }
  const client = `const socket = require("node:net").connect(80, "10.0.1.5");
    socket.once("data", (banner) => {
      process.stdout.write(banner);
      socket.write("hello\\n");
      socket.on("data", (data) => process.stdout.write(data));
    });
    setTimeout(() => process.exit(0), 2000);`;
  const { stdout } = await inside(w.space("client"), [process.execPath, "-e", client]);
  expect(stdout).toBe("SSH-2.0-lab\r\nyou said hello\n");
});

test("the page shows the lab as it is", { timeout: 240_000 }, async ({ skip }) => {
  requireTool("curl", skip);
  const options = chromiumOptions();
  if (typeof options === "string") return skip(options);
  const w = await World.up("privatelink");
  await Promise.all([w.serve("api-1"), w.serve("api-2")]);
  await w.healthy(2);
  const browser = await chromium.launch(options);
  closers.push(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1200, height: 1000 } });
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => errors.push(message.text()));
  await page.goto(`http://127.0.0.1:${w.live.httpPort}/`);
  await expect.poll(() => page.textContent("#figure-targets")).toBe("2 of 2");
  for (let count = 0; count < 5; count++) await w.curl("blue", "http://10.0.1.50/");
  await expect.poll(() => page.textContent("#map")).toContain("vpce-0b10e000000000001");
  await w.say("accept", { endpoint: "vpce-09ee0000000000002" });
  await expect.poll(() => page.textContent("#table-events")).toContain("endpoint.Accept");
  await expect.poll(() => page.textContent("#figure-endpoints")).toBe("2 of 2");
  const metrics = await (await fetch(`http://127.0.0.1:${w.live.httpPort}/metrics`)).text();
  const id = 'resource="vpce-0b10e000000000001",kind="vpc-endpoint",vpc="blue"';
  expect(metrics).toContain(`flowplane_resource_flows_created_total{${id}} 5\n`);
  expect(errors).toEqual([]);
  mkdirSync(new URL("../build/", import.meta.url), { recursive: true });
  const path = new URL("../build/lab-live.png", import.meta.url).pathname;
  await page.screenshot({ path, fullPage: true });
});

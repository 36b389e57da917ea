/**
 * The same library in a browser: bundled without a word about the engine's module, which the page
 * finds beside it, and with the same digests as in Node.
 */
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Outcome, replayBytes } from "./browser/page.ts";
import { chromiumOptions } from "./chromium.ts";

const ROOT = new URL("../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT));
const capture = (name: string) => read(`fixtures/captures/${name}`);

/** Bundles as a program's own bundler would; a `node:` import would be an error. */
const { outputFiles, metafile } = await build({
  entryPoints: [new URL("test/browser/page.ts", ROOT).pathname],
  absWorkingDir: ROOT.pathname,
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2024",
  metafile: true,
  write: false,
});

/** The bundle stands where the published file would, two folders beside build/. */
const FILES: Record<string, [type: string, content: string | Uint8Array]> = {
  "/": ["text/html", '<script type="module" src="/host/engine/page.js"></script>'],
  "/host/engine/page.js": ["text/javascript", outputFiles[0]?.text ?? ""],
  "/build/engine.wasm": ["application/wasm", read("build/engine.wasm")],
  "/web.pcap": ["application/octet-stream", capture("web.pcap")],
  "/web.pcap.gz": ["application/octet-stream", gzipSync(capture("web.pcap"))],
  "/nanoseconds.pcapng": ["application/octet-stream", capture("nanoseconds.pcapng")],
};

let server: Server;
let browser: Browser | undefined;
let leftOut = "";

beforeAll(async () => {
  server = createServer(({ url = "/" }, response) => {
    const [type, content] = FILES[url] ?? ["text/plain", ""];
    response.writeHead(url in FILES ? 200 : 404, { "content-type": type });
    response.end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const options = chromiumOptions();
  if (typeof options === "string") leftOut = options;
  else browser = await chromium.launch(options);
}, 120_000);

afterAll(async () => {
  await browser?.close();
  server.close();
});

test("nothing that the library reaches imports a part of Node", () => {
  const files = Object.keys(metafile.inputs);
  expect(files).toContain("host/engine/engine.ts");
  const imports = files.flatMap((file) => metafile.inputs[file]?.imports ?? []);
  const outside = imports.filter(({ external, path }) => external || path.startsWith("node:"));
  expect(outside).toEqual([]);
});

test("a page finds the engine and comes to the same digests as Node", async ({ skip }) => {
  if (browser === undefined) return skip(leftOut);
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await page.waitForFunction("globalThis.replayUrl");
  for (const name of ["web.pcap", "nanoseconds.pcapng"]) {
    const inPage = (await page.evaluate(`replayUrl("/${name}")`)) as Outcome;
    const inNode = await replayBytes(capture(name));
    expect(inPage).toEqual(inNode);
    expect(inPage.verdicts.forward).toBeGreaterThan(30);
  }
  const plain = await page.evaluate('replayUrl("/web.pcap")');
  expect(await page.evaluate('replayUrl("/web.pcap.gz")')).toEqual(plain);
  expect(complaints).toEqual([]);
  await page.close();
});

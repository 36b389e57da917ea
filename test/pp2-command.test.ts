/** `flowplane pp2`: headers written and read by the command, and what it refuses. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import vectors from "../fixtures/pp2.json" with { type: "json" };
import { awsEndpoint } from "../host/pp2/tlv.ts";

const text = (bytes: Iterable<number>) => Buffer.from([...bytes]).toString("hex");

describe("flowplane pp2", () => {
  const folder = mkdtempSync(join(tmpdir(), "flowplane-pp2-"));
  const main = fileURLToPath(new URL("../host/cli/main.ts", import.meta.url));
  const flowplane = (...words: string[]) => execFileSync(process.execPath, [main, "pp2", ...words]);
  const failure = (...words: string[]) => {
    try {
      execFileSync(process.execPath, [main, "pp2", ...words], { stdio: "pipe" });
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: Buffer };
      return [status, stderr.toString().trim()];
    }
    throw new Error(`pp2 ${words.join(" ")} did not fail`);
  };
  const [aws] = vectors as [(typeof vectors)[number]];
  const words = ["--source", "172.31.7.113:51442", "--destination", "172.31.10.31:80"];
  afterAll(() => rmSync(folder, { recursive: true }));

  test("writes bytes or hex digits, and reads either", () => {
    const all = ["encode", ...words, "--vpce", "vpce-08d2bf15fac5001c9"];
    const bytes = flowplane(...all);
    expect(text(bytes)).toBe(aws.hex);
    expect(flowplane(...all, "--hex").toString()).toBe(`${aws.hex}\n`);
    const file = join(folder, "header");
    writeFileSync(file, bytes);
    const decoded = JSON.parse(flowplane("decode", file, "--json").toString());
    expect(decoded).toMatchObject({
      schema: "flowplane.pp2/1",
      command: "proxy",
      source: { address: "172.31.7.113", port: 51442 },
      crc32c: "e8d6892d",
      headerBytes: 100,
      payloadBytes: 0,
    });
    expect(decoded.tlvs[1]).toEqual({
      offset: 35,
      type: 0xea,
      name: "AWS",
      bytes: 23,
      hex: text(awsEndpoint("vpce-08d2bf15fac5001c9").value),
      text: "vpce-08d2bf15fac5001c9",
    });
    writeFileSync(file, `${aws.hex}\n`);
    expect(flowplane("decode", file)).toEqual(flowplane("decode", aws.hex));
    expect(flowplane("decode", aws.hex).toString()).toContain("CRC32C       e8d6892d, right");
  });

  test("reads what comes late, from standard input and from a pipe with a name", () => {
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    const late = `(sleep 0.3; echo ${aws.hex})`;
    const decode = `"${process.execPath}" "${main}" pp2 decode`;
    const shell = (command: string) => execFileSync("sh", ["-c", command]);
    expect(shell(`${late} | ${decode} -`)).toEqual(flowplane("decode", aws.hex));
    expect(shell(`${late} > "${pipe}" & ${decode} "${pipe}"`)).toEqual(
      flowplane("decode", aws.hex),
    );
  });

  test("an error is one line with the place and the exit status", () => {
    const wrong = aws.hex.replace("ac1f", "ac1e");
    expect(failure("decode", wrong)).toEqual([
      1,
      expect.stringMatching(/^flowplane: header: byte 31: CRC32C e8d6892d, that of the header is/),
    ]);
    expect(failure("decode", "nowhere")).toEqual([
      1,
      "flowplane: nowhere: neither a file nor hex digits",
    ]);
    expect(failure("encode", ...words, "--tlv", "0x100=00")).toEqual([
      2,
      'flowplane: --tlv: "0x100=00" is not TYPE=HEX, as in 0xE0=00ff or AUTHORITY=612e62',
    ]);
    expect(failure("encode", "--source", "1.2.3.4")).toEqual([
      2,
      'flowplane: --source: "1.2.3.4" is not an address and a port, 10.0.0.1:80 or [::1]:80',
    ]);
    expect(failure("encode", ...words, "--tlv", "NOOP=00")).toEqual([
      2,
      'flowplane: --tlv: "NOOP=00" is padding; --pad makes it',
    ]);
    expect(failure("encode", ...words, "--tlv", "3=00000000")).toEqual([
      2,
      'flowplane: --tlv: "3=00000000" is the checksum, which every header has',
    ]);
    expect(failure()).toEqual([2, "flowplane: pp2: what to do is missing: encode, decode"]);
    expect(failure("decoed", "00")).toEqual([
      2,
      'flowplane: pp2: "decoed" is none of encode, decode',
    ]);
  });
});

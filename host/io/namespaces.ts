/**
 * Network namespaces with names, as iproute2 keeps them (/run/netns): so `ip netns exec NAME` works
 * on them. Everything is done by iproute2 itself; nothing outside the named namespaces is touched.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { FlowplaneError } from "../errors.ts";

const FOLDER = "/run/netns";
const COMMAND_MS_MAX = 20_000;

/** File of a namespace, for setns(2). */
export function namespaceFile(name: string): string {
  return `${FOLDER}/${name}`;
}

export function namespaceExists(name: string): boolean {
  return existsSync(namespaceFile(name));
}

/** Runs iproute2. @throws FlowplaneError with what it says */
export function ip(words: readonly string[], input = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile("ip", words, { timeout: COMMAND_MS_MAX }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout);
      const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
      const reason = isMissing ? "is not installed (package iproute2)" : firstLine(stderr);
      const message = reason || error.message;
      reject(new FlowplaneError(`ip ${words.join(" ")}: ${message}`));
    });
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

function firstLine(text: string): string {
  return text.trim().split("\n")[0] ?? "";
}

/** Makes a namespace with its loopback up. */
export async function addNamespace(name: string): Promise<void> {
  await ip(["netns", "add", name]);
  await ip(["-n", name, "link", "set", "lo", "up"]);
}

/** Files that `ip netns exec NAME` puts over those of /etc. */
const OVERLAY = "/etc/netns";
const MARK = "# Made by a Flowplane lab, which removes it again.";

/** Lets programs in a namespace ask a DNS server. A file that somebody else made there stays. */
export function setResolver(name: string, address: string): void {
  const folder = `${OVERLAY}/${name}`;
  const file = `${folder}/resolv.conf`;
  if (existsSync(file) && !isOurs(file)) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, `${MARK}\nnameserver ${address}\noptions timeout:2\n`);
}

function removeResolver(name: string): void {
  const folder = `${OVERLAY}/${name}`;
  const file = `${folder}/resolv.conf`;
  if (!existsSync(file) || !isOurs(file)) return;
  rmSync(file);
  for (const empty of [folder, OVERLAY]) {
    try {
      rmdirSync(empty);
    } catch {
      // Somebody else's files are in it.
      return;
    }
  }
}

function isOurs(file: string): boolean {
  return readFileSync(file, "utf8").startsWith(MARK);
}

/** Removes a namespace's name; what runs inside keeps its own, device-less network. */
export async function removeNamespace(name: string): Promise<void> {
  removeResolver(name);
  if (namespaceExists(name)) await ip(["netns", "delete", name]);
}

export interface InterfaceOptions {
  device: string;
  addresses: readonly string[];
  mtu: number;
}

const isIpv6 = (address: string) => address.includes(":");

const QUEUE_FRAMES = 1000;

/** Brings an interface up as the only way out of its namespace, for both families. */
export async function setUpInterface(namespace: string, options: InterfaceOptions): Promise<void> {
  const { device, addresses, mtu } = options;
  const lines = [
    `link set dev ${device} addrgenmode none`,
    `link set dev ${device} mtu ${mtu} txqueuelen ${QUEUE_FRAMES} up`,
    ...addresses.map((address) => {
      return isIpv6(address)
        ? `addr add ${address}/128 dev ${device} nodad`
        : `addr add ${address}/32 dev ${device}`;
    }),
    ...(addresses.some(isIpv6) ? [`route add ::/0 dev ${device}`] : []),
    ...(addresses.every(isIpv6) ? [] : [`route add 0.0.0.0/0 dev ${device}`]),
  ];
  await ip(["-n", namespace, "-batch", "-"], `${lines.join("\n")}\n`);
}

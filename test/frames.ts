/** Frames of Ethernet and IPv4 as short lines of text, for tests that say what went where. */

interface Line {
  /** `10.0.0.1:4000 > 10.0.0.2:80 SA`, of UDP `udp`, of ICMP `icmp 3/4`, else `ip PROTOCOL`. */
  text: string;
  source: string;
  destination: string;
  vlan: number | undefined;
  /** Where the IPv4 header begins. */
  network: number;
}

const FLAGS = "FSRPA";

export function lineOf(frame: Uint8Array): Line {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const isTagged = view.getUint16(12) === 0x8100;
  const network = isTagged ? 18 : 14;
  const vlan = isTagged ? view.getUint16(14) & 0xfff : undefined;
  const address = (at: number) => [...frame.subarray(at, at + 4)].join(".");
  const [from, to] = [address(network + 12), address(network + 16)];
  const protocol = frame[network + 9] as number;
  const transport = network + ((frame[network] as number) & 15) * 4;
  const isLater = (view.getUint16(network + 6) & 0x1fff) !== 0;
  const hasPorts = (protocol === 6 || protocol === 17) && !isLater;
  const port = (at: number) => (hasPorts ? `:${view.getUint16(transport + at)}` : "");
  const [source, destination] = [from + port(0), to + port(2)];
  const what = isLater ? "fragment" : kindOf(frame, protocol, transport);
  return { text: `${source} > ${destination} ${what}`, source, destination, vlan, network };
}

function kindOf(frame: Uint8Array, protocol: number, transport: number): string {
  if (protocol === 17) return "udp";
  if (protocol === 1) return `icmp ${frame[transport]}/${frame[transport + 1]}`;
  if (protocol !== 6) return `ip ${protocol}`;
  const bits = frame[transport + 13] as number;
  return [...FLAGS].filter((_, bit) => bits & (1 << bit)).join("");
}

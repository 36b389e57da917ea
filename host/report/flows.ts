/** The conversation table for a person: one line a conversation, times since the first packet. */

import type { Conversation, FlowsResult } from "../replay/flows.ts";
import { type Column, table } from "./table.ts";
import { count, counted, dataSize, duration } from "./units.ts";

/** The table and a line of totals, without a newline at the end. */
export function flowsReport({ capture, flows, unassigned, notes }: FlowsResult): string {
  const start = flows[0]?.firstSeen ?? 0;
  const hasVlans = flows.some(({ vlans }) => vlans.length > 0);
  const columns: Column[] = [
    { title: "protocol", align: "left" },
    { title: "source", align: "left" },
    { title: "destination", align: "left" },
    ...(hasVlans ? [{ title: "VLAN", align: "left" } as const] : []),
    { title: "packets", align: "right" },
    { title: "data", align: "right" },
    { title: "first s", align: "right" },
    { title: "lasted", align: "right" },
    { title: "state", align: "left" },
  ];
  const rows = flows.map((flow) => [
    flow.protocol,
    endpointText(flow.source),
    endpointText(flow.destination),
    ...(hasVlans ? [flow.vlans.join(".")] : []),
    count(flow.packets),
    dataSize(flow.bytes),
    (flow.firstSeen - start).toFixed(3),
    duration(Math.max(0, Number((flow.lastSeen - flow.firstSeen).toFixed(6)))),
    flow.state ?? "",
  ]);
  const began = flows.length > 0 ? `; began ${new Date(start * 1000).toISOString()}` : "";
  const others = Object.entries(unassigned).map(
    ([verdict, packets]) => `${counted(packets ?? 0, "packet")} in none (${verdict})`,
  );
  return [
    ...table(columns, rows),
    "",
    `${counted(flows.length, "conversation")}, ${counted(capture.packets, "packet")}, ` +
      `${dataSize(capture.bytes)}${began}`,
    ...others,
    ...notes,
  ].join("\n");
}

/** 10.0.0.1:80, [2001:db8::1]:80, and the address alone where there is no port. */
export function endpointText({ address, port }: Conversation["source"]): string {
  if (port === 0) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

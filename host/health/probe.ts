/**
 * One health check of one target, as network load balancers make them (Elastic Load Balancing user
 * guide, "Health checks for Network Load Balancer target groups"): TCP connects; HTTP and HTTPS
 * ask for a path and look at the status. The connection ends with the check.
 *
 * A certificate is not verified, as with AWS. With PROXY protocol on, the LOCAL header goes first.
 * A target's misbehaviour is a result with a reason, never an exception.
 */

import { type ClientRequest, request } from "node:http";
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

export interface Check {
  protocol: "TCP" | "HTTP" | "HTTPS";
  address: string;
  port: number;
  /** Path and query of HTTP checks; default "/". */
  path?: string;
  /** Status codes that are good, such as "200-399" or "200,301"; default "200-399". */
  matcher?: string;
  /** Value of the Host header: the node's address and the listener's port. */
  host?: string;
  timeoutMs: number;
  /** Bytes that go before everything else: the PROXY protocol header. */
  preamble?: Uint8Array | undefined;
  /** Address of the load balancer's node, and the port to bind; default any. */
  source?: { address: string; port: number } | undefined;
  /** Outbound rules do not let it out: it times out, as what is dropped does. */
  isBlocked?: boolean;
}

/** Reason codes of TargetHealth in the Elastic Load Balancing API. */
export type FailureReason =
  | "Target.Timeout"
  | "Target.FailedHealthChecks"
  | "Target.ResponseCodeMismatch";

export type CheckResult =
  | { isHealthy: true; milliseconds: number }
  | { isHealthy: false; milliseconds: number; reason: FailureReason; description: string };

type Outcome =
  | { isHealthy: true }
  | { isHealthy: false; reason: FailureReason; description: string };

const TIMED_OUT = {
  isHealthy: false,
  reason: "Target.Timeout",
  description: "Request timed out",
} as const;

/** Makes the check; always comes back, at the latest after its timeout. */
export function probe(
  check: Check,
  now: () => number = () => performance.now(),
): Promise<CheckResult> {
  const startMs = now();
  if (check.isBlocked) return blocked(check, startMs, now);
  return new Promise((resolve) => {
    const socket = connect({
      host: check.address,
      port: check.port,
      ...(check.source && {
        localAddress: check.source.address,
        localPort: check.source.port,
      }),
    });
    const end = (outcome: Outcome) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ ...outcome, milliseconds: now() - startMs });
    };
    const timer = setTimeout(() => end(TIMED_OUT), check.timeoutMs);
    socket.on("error", (error: NodeJS.ErrnoException) => end(failed(error)));
    socket.on("connect", () => {
      if (check.preamble) socket.write(check.preamble);
      if (check.protocol === "TCP") socket.end(() => end({ isHealthy: true }));
      else askStatus(check, socket, end);
    });
  });
}

function blocked(check: Check, startMs: number, now: () => number): Promise<CheckResult> {
  return new Promise((resolve) => {
    setTimeout(() => resolve({ ...TIMED_OUT, milliseconds: now() - startMs }), check.timeoutMs);
  });
}

function failed(error: NodeJS.ErrnoException): Outcome {
  const description = `Health checks failed: ${error.code ?? error.message}`;
  return { isHealthy: false, reason: "Target.FailedHealthChecks", description };
}

function askStatus(check: Check, socket: Socket, end: (outcome: Outcome) => void): void {
  const stream =
    check.protocol === "HTTPS" ? connectTls({ socket, rejectUnauthorized: false }) : socket;
  stream.on("error", (error) => end(failed(error)));
  const asked: ClientRequest = request({
    path: check.path ?? "/",
    headers: {
      Host: check.host ?? `${check.address}:${check.port}`,
      "User-Agent": "ELB-HealthChecker/2.0",
      Connection: "close",
    },
    createConnection: () => stream,
  });
  asked.on("error", (error) => end(failed(error)));
  asked.on("response", ({ statusCode = 0 }) => {
    if (matches(check.matcher ?? "200-399", statusCode)) return end({ isHealthy: true });
    const description = `Health checks failed with these codes: [${statusCode}]`;
    end({ isHealthy: false, reason: "Target.ResponseCodeMismatch", description });
  });
  asked.end();
}

/** Whether a status is in a matcher: codes and ranges with commas between. */
export function matches(matcher: string, status: number): boolean {
  return matcher.split(",").some((part) => {
    const [from = "", to = from] = part.trim().split("-");
    return Number(from) <= status && status <= Number(to);
  });
}

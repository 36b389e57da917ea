/**
 * Connection notifications of endpoint services (EC2 API: ConnectionNotification): the events
 * `Accept`, `Connect`, `Delete` and `Reject`. AWS does not document the body of its messages, so
 * this one is Flowplane's own, with a version.
 */

export type ConnectionEvent = "Accept" | "Connect" | "Delete" | "Reject";

export interface ConnectionNotification {
  schema: "flowplane.connection/1";
  event: ConnectionEvent;
  /** Instant of the clock that the control plane runs on, ISO 8601 with milliseconds. */
  time: string;
  serviceId: string;
  endpointId: string;
  /** Account of the endpoint, 12 digits. */
  owner: string;
  /** State of the endpoint after the event. */
  state: string;
  vpc: string;
  dnsNames: string[];
}

export interface NotificationConfig {
  events: readonly ConnectionEvent[];
}

/** The names of those notifications of a service that want an event. */
export function subscribers(
  notifications: Readonly<Record<string, NotificationConfig>>,
  event: ConnectionEvent,
): string[] {
  return Object.entries(notifications)
    .filter(([, { events }]) => events.includes(event))
    .map(([name]) => name);
}

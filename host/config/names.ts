/** The names and ids that AWS gives: what each looks like, in one place. */
import { text } from "./parts.ts";

export const accountId = text(/^\d{12}$/, "an account of 12 digits in quotes");

export const region = text(/^[a-z]{2}(-[a-z]+)+-\d$/, "the name of a region such as us-east-1");

export const zoneId = text(
  /^[a-z]{2,4}\d-az\d{1,2}$/,
  "the id of an availability zone such as use1-az1",
);

export const zoneName = text(
  /^[a-z]{2}(-[a-z]+)+-\d[a-z]$/,
  "the name of an availability zone such as us-east-1a",
);

const PRINCIPAL = /^arn:aws:iam::\d{12}:(root|(user|role)\/[\w+=,.@/-]{1,512})$/;

export const principal = text(PRINCIPAL, "an ARN of IAM");

export const principalOrAll = text(new RegExp(`^\\*$|${PRINCIPAL.source}`), "* or an ARN of IAM");

export const endpointId = text(
  /^vpce-([0-9a-f]{17}|[0-9a-f]{8})$/,
  "the id of an endpoint: vpce- and 17 hexadecimal digits",
);

export const serviceId = text(
  /^vpce-svc-[0-9a-f]{17}$/,
  "the id of an endpoint service: vpce-svc- and 17 hexadecimal digits",
);

export const serviceName = text(/^com\.amazonaws\.[a-z0-9.-]+$/, "a name of a service of AWS");

export const domainName = text(
  /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/,
  "a domain name in lower case",
).max(255, { error: "is longer than 255 characters" });

export const fileSystemId = text(
  /^fs-([0-9a-f]{17}|[0-9a-f]{8})$/,
  "the id of a file system: fs- and 17 digits",
);

/**
 * Names under which resources are found, in AWS's formats (behaviour of "AWS PrivateLink DNS
 * names", "Network Load Balancer DNS name", "Amazon EFS: mounting with a DNS name"). Parts that
 * AWS draws at random are taken from a hash of what they belong to, so that equal configurations
 * have equal names.
 */

const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";

export interface EndpointNames {
  regional: string;
  /** By id of the zone. */
  zonal: Record<string, string>;
}

/**
 * `vpce-ID-SUFFIX.SERVICE.REGION.vpce.amazonaws.com`, and zonal names with the zone's name behind
 * the eight characters. `service` is the service's id, or the label of a service of AWS.
 */
export function endpointNames(
  endpoint: string,
  service: string,
  region: string,
  zoneNames: Readonly<Record<string, string>>,
  suffix = endpointSuffix(endpoint, service),
): EndpointNames {
  const name = (zone: string) =>
    `${endpoint}-${suffix}${zone}.${service}.${region}.vpce.amazonaws.com`;
  const zonal = Object.entries(zoneNames).map(([zone, label]) => [zone, name(`-${label}`)]);
  return { regional: name(""), zonal: Object.fromEntries(zonal) };
}

/** The eight characters a-z0-9 of an endpoint's name. */
export function endpointSuffix(endpoint: string, service: string): string {
  let rest = hash64(`${endpoint} ${service}`);
  let suffix = "";
  for (let place = 0; place < 8; place++) {
    suffix += LETTERS[Number(rest % 36n)];
    rest /= 36n;
  }
  return suffix;
}

/** `vpce-svc-ID.REGION.vpce.amazonaws.com`. */
export function serviceDnsName(service: string, region: string): string {
  return `${service}.${region}.vpce.amazonaws.com`;
}

/** `com.amazonaws.vpce.REGION.vpce-svc-ID`, what consumers ask for. */
export function serviceName(service: string, region: string): string {
  return `com.amazonaws.vpce.${region}.${service}`;
}

/** The label of a service in its endpoints' names: the id, or the last word of AWS's name. */
export function serviceLabel(service: string, awsName: string | undefined): string {
  const label = awsName?.split(".").at(-1);
  // The one service whose DNS label is not its name.
  if (label === "kinesis-streams") return "kinesis";
  return label ?? service;
}

/** AWS's own public name that private DNS overrides: `kinesis.us-east-1.amazonaws.com`. */
export function awsDnsName(label: string, region: string): string {
  return `${label}.${region}.amazonaws.com`;
}

/** `NAME-ID.elb.REGION.amazonaws.com`, and zonal names with the zone's name in front. */
export function loadBalancerNames(
  name: string,
  region: string,
  zoneNames: Readonly<Record<string, string>>,
): EndpointNames {
  const regional = `${name}-${resourceId(`loadbalancer ${name}`)}.elb.${region}.amazonaws.com`;
  const zonal = Object.entries(zoneNames).map(([zone, label]) => [zone, `${label}.${regional}`]);
  return { regional, zonal: Object.fromEntries(zonal) };
}

/** `fs-ID.efs.REGION.amazonaws.com`, and zonal names with the zone's name in front. */
export function fileSystemNames(
  fileSystem: string,
  region: string,
  zoneNames: Readonly<Record<string, string>>,
): EndpointNames {
  const regional = `${fileSystem}.efs.${region}.amazonaws.com`;
  const zonal = Object.entries(zoneNames).map(([zone, label]) => [zone, `${label}.${regional}`]);
  return { regional, zonal: Object.fromEntries(zonal) };
}

/** Marketplace: `vpceID.api.vpce.DOMAIN`, zonal with the zone's name in front of it. */
export function marketplaceNames(
  endpoint: string,
  domain: string,
  zoneNames: Readonly<Record<string, string>>,
): EndpointNames {
  const label = endpoint.replace("-", "");
  const name = (front: string) => `${front}${label}.api.vpce.${domain}`;
  const zonal = Object.entries(zoneNames).map(([zone, label]) => [zone, name(`${label}-`)]);
  return { regional: name(""), zonal: Object.fromEntries(zonal) };
}

/** `net/NAME/16 hexadecimal digits`: the CloudWatch dimension LoadBalancer. */
export function loadBalancerDimension(name: string): string {
  return `net/${name}/${resourceId(`loadbalancer ${name}`)}`;
}

/** `targetgroup/NAME/16 hexadecimal digits`: the CloudWatch dimension TargetGroup. */
export function targetGroupDimension(name: string): string {
  return `targetgroup/${name}/${resourceId(`targetgroup ${name}`)}`;
}

/** Sixteen hexadecimal digits that belong to a name. */
export function resourceId(name: string): string {
  return hash64(name).toString(16).padStart(16, "0");
}

/** FNV-1a over UTF-16 code units, 64 bits, with a last mix so that near names lie far apart. */
function hash64(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (let index = 0; index < text.length; index++) {
    hash ^= BigInt(text.charCodeAt(index));
    hash = (hash * 0x100000001b3n) & 0xffffffffffffffffn;
  }
  hash ^= hash >> 33n;
  hash = (hash * 0xff51afd7ed558ccdn) & 0xffffffffffffffffn;
  return hash ^ (hash >> 33n);
}

/**
 * Availability zones: ids such as `use1-az1` mean the same place for everyone, names such as
 * `us-east-1a` are shuffled for each account. DNS uses the names of the consumer's account.
 */

/** Names of zones by account, then by id, as far as a configuration gives them. */
export type ZoneNames = Readonly<Record<string, { zone_names: Readonly<Record<string, string>> }>>;

/** The account's name of a zone; where nothing is given, az1 is a, az2 is b and so on. */
export function zoneName(
  accounts: ZoneNames | undefined,
  account: string,
  zone: string,
  region: string,
): string {
  const given = accounts?.[account]?.zone_names[zone];
  if (given !== undefined) return given;
  const number = Number(zone.slice(zone.indexOf("-az") + 3));
  return `${region}${String.fromCharCode(96 + Math.min(Math.max(number, 1), 26))}`;
}

/** Zones that both sides have, in the consumer's order: no others are offered. */
export function commonZones(consumer: readonly string[], provider: readonly string[]): string[] {
  return consumer.filter((zone) => provider.includes(zone));
}

/** A network that has one of everything, as text, for tests that change a line of it. */

export const NETWORK = `region: us-east-1
ports:
  - { interface: 0, vpc: consumer }
  - { interface: 1, vpc: provider }
  - { interface: 0, vlan: 20, vpc: other }
accounts:
  "222222222222": { zone_names: { use1-az1: us-east-1c, use1-az2: us-east-1a } }
vpcs:
  consumer:
    account: "222222222222"
    cidrs: [10.0.0.0/16, "fd00:1::/64"]
    subnets:
      consumer-a: { cidr: 10.0.1.0/24, zone: use1-az1, ipv6_cidr: "fd00:1::/80" }
      consumer-b: { cidr: 10.0.2.0/24, zone: use1-az2 }
      consumer-c: { cidr: 10.0.3.0/24, zone: use1-az3 }
    route_tables:
      main:
        - { to: 0.0.0.0/0, via: nat-1 }
        - { to: 64:ff9b::/96, via: nat-1 }
        - { to: 10.9.0.0/16, via: other }
        - { to: 198.51.100.0/24, via: blackhole }
  provider:
    cidrs: [10.0.0.0/16]
    subnets:
      provider-a: { cidr: 10.0.2.0/24, zone: use1-az1 }
      provider-b: { cidr: 10.0.3.0/24, zone: use1-az2 }
  other:
    cidrs: [10.9.0.0/16]
security_groups:
  sg-web:
    vpc: provider
    ingress:
      - { protocol: tcp, ports: 80, from: 10.0.0.0/16 }
      - { protocol: tcp, ports: 8000-8099, from: sg-web }
      - { protocol: icmp, from: 0.0.0.0/0 }
    egress: [{ protocol: all, to: pl-s3 }]
  sg-client: { vpc: consumer, ingress: [{ protocol: all, from: 10.0.0.0/16 }] }
prefix_lists: { pl-s3: [54.123.165.0/24] }
target_groups:
  web:
    protocol: TCP
    port: 8080
    vpc: provider
    target_type: ip
    targets:
      - { address: 10.0.2.10 }
      - { address: 10.0.3.10, port: 8081 }
    health_check: { protocol: HTTP, path: /ready, interval_seconds: 10 }
    attributes:
      preserve_client_ip.enabled: false
      proxy_protocol_v2.enabled: true
  web-new: { protocol: TCP, port: 8080, vpc: provider, target_type: ip, targets: [{ address: 10.0.2.20 }] }
  dns: { protocol: UDP, port: 53, vpc: provider, target_type: ip, targets: [{ address: 10.0.2.10 }] }
  files: { protocol: TCP, port: 2049, vpc: consumer, target_type: ip, targets: [{ address: 10.0.1.80 }] }
load_balancers:
  nlb-1:
    vpc: provider
    subnets:
      provider-a: { address: 10.0.2.5 }
      provider-b: { address: 10.0.3.5, secondary_addresses: [10.0.3.6] }
    security_groups: [sg-web]
    attributes: { load_balancing.cross_zone.enabled: true }
    listeners:
      - { protocol: TCP, port: 80, forward: [{ target_group: web, weight: 3 }, { target_group: web-new }], attributes: { tcp.idle_timeout.seconds: 400 } }
      - { protocol: UDP, port: 53, forward: dns }
endpoint_services:
  vpce-svc-0123456789abcdef0:
    load_balancer: nlb-1
    acceptance_required: false
    allowed_principals: ["*"]
    private_dns_name: api.example.com
endpoints:
  vpce-0a1b2c3d4e5f60718:
    service: vpce-svc-0123456789abcdef0
    vpc: consumer
    subnets: { consumer-a: { address: 10.0.1.50 }, consumer-b: { address: 10.0.2.50 } }
    security_groups: [sg-client]
    private_dns_enabled: true
gateway_endpoints:
  vpce-gw: { vpc: consumer, prefix_list: pl-s3, route_tables: [main] }
nat_gateways:
  nat-1: { subnet: consumer-a, addresses: [203.0.113.1, 203.0.113.2] }
mount_targets:
  fsmt-1: { subnet: consumer-a, address: 10.0.1.60, file_system: fs-0123456789abcdef0, forward: files }
timeline:
  - { at_seconds: 2.5, deregister: { target_group: web, target: 10.0.2.10 } }
  - { at_seconds: 3, weight: { load_balancer: nlb-1, protocol: TCP, port: 80, target_group: web, weight: 0 } }
  - { at_seconds: 4, reject: { endpoint: vpce-0a1b2c3d4e5f60718 } }
  - { at_seconds: 5, disassociate: { nat_gateway: nat-1, address: 203.0.113.2 } }
lab: { name: sample }
timeouts: { udp_seconds: 60 }
`;

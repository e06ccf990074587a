// Promises of DomainControl.

internal import Hypervisor

extension HypervisorContract {
    static let domainCases: [ContractCase] = [
        ContractCase("domains: a domain knows its own number and has an identity that stays") { subject in
            let domains = subject.backend.domains
            let identity = try domains.identity(of: domains.own)
            try expect(identity != nil, "the own domain \(domains.own) has no identity")
            try expectEqual(try domains.identity(of: domains.own), identity, "the second answer")
            try expectEqual(subject.neighbour.domains.own, domains.own, "the neighbour's domain")
            try expectEqual(try subject.neighbour.domains.identity(of: domains.own), identity, "the neighbour's answer")
        },
        ContractCase("domains: different domains have different identities") { subject in
            let domains = subject.backend.domains
            let frontend = subject.frontend.domains.own
            let identity = try domains.identity(of: frontend)
            try expect(identity != nil, "the frontend's domain \(frontend) has no identity")
            let same = identity == (try domains.identity(of: domains.own))
            try expectEqual(same, frontend == domains.own, "whether the identities are equal")
        },
        ContractCase("domains: an identity is the UUID that the toolstack wrote, or the number") { subject in
            for domain in [subject.backend.domains.own, subject.frontend.domains.own] {
                let vm = try await subject.backend.store.read("/local/domain/\(domain)/vm")
                try expectEqual(
                    try subject.backend.domains.identity(of: domain),
                    DomainIdentity(vm: vm) ?? DomainIdentity(numberOf: domain),
                    "the identity of domain \(domain)"
                )
            }
        },
        ContractCase("domains: a domain that is not there has no identity") { subject in
            try expectEqual(try subject.backend.domains.identity(of: subject.missing), nil, "the identity")
        },
    ]
}

// Clients and daemons of version 1 of the interface, with the bytes they send and the fields they know.

import Foundation
import Testing

@testable import ControlProtocol

/// A reply's types as version 1 had them.
private enum Version1 {
    struct Answer<Parameters: Decodable>: Decodable { var parameters: Parameters }
    struct Device: Decodable, Equatable {
        var path: String
        var kind: String
        var domain: Int
        var domainName: String?
        var index: Int
        var node: String?
        var backendState: String
        var frontendState: String
        var phase: String
        var worker: Int?
        var problem: String?
    }
    struct Fact: Decodable, Equatable {
        var name: String
        var value: String
    }
    struct Counter: Decodable, Equatable {
        var name: String
        var value: Int64
    }
    struct Report: Decodable {
        var device: Device
        var facts: [Fact]
        var counters: [Counter]
        var lastFault: String?
    }
    struct Reports: Decodable { var reports: [Report] }
    struct Version: Decodable {
        var version: String
        var process: Int
    }
    struct Card: Decodable {
        var device: Device
        var mac: String?
        var interface: String?
        var bridge: String?
        var mtu: Int?
        var queues: Int?
        var txPackets: Int64
        var rxDropped: Int64
    }
    struct Cards: Decodable { var cards: [Card] }
    struct Disk: Decodable {
        var device: Device
        var target: String?
        var readOnly: Bool
        var cdrom: Bool
        var sectors: Int64?
        var logicalBlockSize: Int?
    }
    struct Disks: Decodable { var disks: [Disk] }
}

@Suite struct OldClientTests {
    private static let device = Device(
        path: "backend/vif/7/0",
        kind: "vif",
        domain: 7,
        index: 0,
        backendState: "initWait",
        frontendState: "none",
        phase: "waiting"
    )

    private static var dispatch: ControlDispatch {
        var dispatch = ControlDispatch(product: "xenbackd", version: "9", process: 11)
        var facts = CardFacts()
        (facts.mac, facts.mtu, facts.txPackets) = ("00:16:3e:00:00:01", 1500, 17)
        let (card, disk) = (facts, DiskFacts(target: "/a.img", readOnly: true, cdrom: false, sectors: 8))
        dispatch.on(Show.self) { _ in
            var report = Report(
                device: device,
                facts: [.init(name: "mtu", value: "1500")],
                counters: [.init(name: "tx-packets", value: 17)]
            )
            (report.card, report.lastFault) = (card, "bad slot")
            return Show.Reply(reports: [report])
        }
        dispatch.on(NetworkList.self) { _ in NetworkList.Reply(cards: [NetworkCard(device: device, card)]) }
        dispatch.on(BlockList.self) { _ in BlockList.Reply(disks: [Disk(device: device, disk)]) }
        return dispatch
    }

    /// Sends the bytes as they are, and decodes the answer with version 1's types.
    private func answer<Parameters: Decodable>(to json: String, as type: Parameters.Type) async throws -> Parameters {
        var connection = ControlConnection()
        connection.receive(Array(json.utf8) + [0])
        guard case .answer(let call) = connection.next() else {
            throw ControlError.malformedMessage(reason: json)
        }
        let bytes = try #require(await Self.dispatch.answer(call))
        #expect(bytes.last == 0)
        return try JSONDecoder().decode(Version1.Answer<Parameters>.self, from: Data(bytes.dropLast())).parameters
    }

    @Test func aClientOfVersion1IsAnsweredAsBefore() async throws {
        let version = try await answer(
            to: #"{"method":"org.xenback.control.GetVersion","parameters":{}}"#,
            as: Version1.Version.self
        )
        #expect(version.version == "9" && version.process == 11)
        let show = #"{"method":"org.xenback.control.Show","parameters":{"domain":"7","device":"vif\/0"}}"#
        let report = try #require(try await answer(to: show, as: Version1.Reports.self).reports.first)
        #expect(report.device.path == "backend/vif/7/0" && report.device.backendState == "initWait")
        #expect(report.facts == [.init(name: "mtu", value: "1500")] && report.lastFault == "bad slot")
        #expect(report.counters == [.init(name: "tx-packets", value: 17)])
        let cards = try await answer(
            to: #"{"method":"org.xenback.control.NetworkList","parameters":{"domain":"7"}}"#,
            as: Version1.Cards.self
        ).cards
        #expect(cards.first?.mac == "00:16:3e:00:00:01" && cards.first?.txPackets == 17 && cards.first?.rxDropped == 0)
        let disks = try await answer(
            to: #"{"parameters":{"domain":"7"},"method":"org.xenback.control.BlockList"}"#,
            as: Version1.Disks.self
        ).disks
        #expect(disks.first?.target == "/a.img" && disks.first?.readOnly == true && disks.first?.sectors == 8)
    }

    @Test func aDaemonOfVersion1IsUnderstood() throws {
        let version = try ControlMessage.decodeReply(
            to: GetVersion.self,
            from: Array(#"{"parameters":{"process":3,"version":"0.1.0"}}"#.utf8)
        )
        #expect(version.interface == nil && version.process == 3)
        let json =
            #"{"parameters":{"reports":[{"counters":[{"name":"reads","value":4}],"device":"#
            + #"{"backendState":"connected","domain":7,"frontendState":"connected","index":51712,"kind":"vbd3","#
            + #""path":"backend\/vbd3\/7\/51712","phase":"serving"},"facts":[{"name":"image","value":"\/a.img"}],"#
            + #""latencies":[]}]}}"#
        let report = try #require(
            try ControlMessage.decodeReply(to: Show.self, from: Array(json.utf8)).reports.first
        )
        #expect(report.disk == nil && report.facts.first?.value == "/a.img" && report.counters.first?.value == 4)
    }
}

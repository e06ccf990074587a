internal import XenWire
struct TransmitRate { init?(text: String) { return nil } }
struct CreditBucket { init(_ r: TransmitRate, now: UInt64) {}
 mutating func pause(now: UInt64) -> UInt64? { nil }
 mutating func charge(_ b: Int, now: UInt64) {} }
struct MulticastFilter { var count = 0; mutating func perform(_ r: MulticastRequest) -> Bool { true }; func contains(_ a: MACAddress) -> Bool { false } }
struct HashSettings { init(queueCount: Int) {} }

// A card's frontend for measurements: posts, sends, takes and checks, one batch at a time.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// Both rings of one queue, with a page for each slot. The pages of the transmit ring hold the shape's packet.
struct NetLoad: ~Copyable {
    let shape: NetShape
    let transmitRing: SharedGrant
    let receiveRing: SharedGrant
    let transmitPages: SharedGrant
    let receivePages: SharedGrant
    private var out: FrontRing
    private var back: FrontRing
    private let answer: PrivatePages

    init(_ shape: NetShape, _ guest: any Hypervisor) throws {
        func share(_ count: Int) throws -> SharedGrant {
            try guest.sharing.share(pageCount: count, with: .initial, access: .readWrite)
        }
        let (transmitRing, receiveRing) = (try share(1), try share(1))
        let (sent, received) = (try share(shape.pageCount), try share(NetWire.receiveSlots))
        let answer = try PrivatePages(byteCount: 4096)
        let frame = try PrivatePages(byteCount: shape.pageCount * SharedPages.pageSize)
        shape.write(into: frame.slot(at: 0, byteCount: shape.byteCount))
        sent.pages.copyIn(at: 0, count: shape.byteCount, from: frame, at: 0)
        self.shape = shape
        self.transmitRing = transmitRing
        self.receiveRing = receiveRing
        self.answer = answer
        transmitPages = sent
        receivePages = received
        out = FrontRing(pages: transmitRing.pages, stride: NetWire.transmitStride)
        back = FrontRing(pages: receiveRing.pages, stride: NetWire.receiveStride)
    }

    /// A frontend's keys, as it writes them for one queue.
    var keys: [String: String] {
        [
            NetKeys.requestReceiveCopy: "1", NetKeys.featureReceiveNotify: "1", NetKeys.featureScatterGather: "1",
            NetKeys.featureSegmentationV4: "1", NetKeys.featureSegmentationV6: "1",
            NetKeys.featureChecksumOffloadV6: "1", BusKeys.eventChannel: "1",
            NetKeys.transmitRingReference: "\(transmitRing.references[0].rawValue)",
            NetKeys.receiveRingReference: "\(receiveRing.references[0].rawValue)",
        ]
    }

    /// Puts a batch of packets into the transmit ring.
    mutating func send() {
        for _ in 0..<shape.batch {
            for page in 0..<shape.pageCount {
                let isLast = page == shape.pageCount - 1
                var flags: TransmitFlags = isLast ? [] : .moreData
                if page == 0 { flags.formUnion([.checksumBlank, .dataValidated]) }
                if page == 0, shape.segmentation != nil { flags.insert(.extraInfo) }
                let bytes = page == 0 ? shape.byteCount : min(4096, shape.byteCount - page * 4096)
                out.put(
                    TransmitRequest<Slot>.words(
                        transmitPages.references[page],
                        offset: 0,
                        flags: flags,
                        id: UInt16(truncatingIfNeeded: out.requestProducer & 255),
                        size: UInt16(bytes)
                    ),
                    count: NetWire.transmitStride
                )
                if page == 0, let segmentation = shape.segmentation {
                    out.put(
                        WireWords(low: ExtraInfo.segmentation(segmentation).word(), high: 0),
                        count: NetWire.transmitStride
                    )
                }
            }
        }
        _ = out.push()
    }

    /// Takes the answers to a batch.
    /// - Returns: whether each slot has one, and none is an error.
    mutating func isAnswered() throws -> Bool {
        guard Int(try out.poll()) == shape.batch * shape.slotCount else { return false }
        var isRight = true
        let slot = answer.slot(at: 0, byteCount: NetWire.transmitResponseSize)
        while out.waiting > 0 {
            out.takeNext(into: slot, count: NetWire.transmitResponseSize)
            let status = TransmitResponse(decoding: slot).status
            isRight = isRight && (status == TransmitStatus.okay.wireValue.signed || status == 1)
        }
        _ = try out.lastLook()
        return isRight
    }

    /// Posts all pages that the backend does not have.
    mutating func post() {
        while back.free > 0 {
            let id = back.requestProducer & 255
            let request = ReceiveRequest(
                id: UInt16(truncatingIfNeeded: id),
                reference: receivePages.references[Int(id)]
            )
            back.put(request.words, count: NetWire.receiveStride)
        }
        _ = back.push()
    }

    /// Takes a batch of received packets.
    /// - Returns: whether they are all there, each with all its bytes.
    mutating func isReceived() throws -> Bool {
        guard Int(try back.poll()) == shape.batch * shape.slotCount else { return false }
        var (isRight, total) = (true, 0)
        let slot = answer.slot(at: 0, byteCount: NetWire.receiveStride)
        for place in 0..<shape.batch * shape.slotCount {
            back.takeNext(into: slot, count: NetWire.receiveStride)
            let isExtra = shape.segmentation != nil && place % shape.slotCount == 1
            if isExtra { continue }
            let status = ReceiveResponse(decoding: slot).status
            isRight = isRight && status > 0
            total += Int(status)
        }
        _ = try back.lastLook()
        return isRight && total == shape.batch * shape.byteCount
    }
}

extension UInt16 {
    fileprivate var signed: Int16 { Int16(bitPattern: self) }
}

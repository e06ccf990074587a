// Decodes a call, runs it on the machine's state, encodes the answer.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// An answer under construction.
struct MachineReply: Sendable {
    var message = MessageWriter()
    var descriptors: [Descriptor] = []
}

extension MachineState {
    /// Runs `call` for session `id`; its arguments are next in `request`.
    mutating func answer(
        _ call: SimulatedCall,
        _ request: inout MessageReader,
        of id: UInt64
    ) throws(Errno) -> MachineReply {
        guard let session = sessions[id], serials[session.caller.domain] == session.serial else {
            throw .noSuchProcess
        }
        if call.isStore { return try answerStore(call, &request, session) }
        switch call {
        case .bind, .allocate, .unbind: return try answerPorts(call, &request, session)
        case .mapInterrupt, .unmapInterrupt: return try answerInterrupts(call, &request, session)
        case .inject:
            var plan = faults
            let count: UInt32 = try request.integer()
            for _ in 0..<count { plan.rules.append(try FaultPlan.Rule(from: &request)) }
            setFaults(plan)
        case .clearFaults: setFaults(FaultPlan())
        case .identity:
            var reply = MachineReply()
            reply.message.put(try identity(of: try request.domain(), for: session.caller)?.text ?? "")
            return reply
        default: return try answerGrants(call, &request, session)
        }
        return MachineReply()
    }

    private mutating func answerStore(
        _ call: SimulatedCall,
        _ request: inout MessageReader,
        _ session: Session
    ) throws(Errno) -> MachineReply {
        var reply = MachineReply()
        switch call {
        case .storeTransactionStart: reply.message.put(try startTransaction(of: session.id))
        case .storeTransactionEnd:
            let number: UInt32 = try request.integer()
            let commit: UInt8 = try request.integer()
            try endTransaction(number, commit: commit != 0, of: session.id)
        case .storeWatch:
            let token: UInt64 = try request.integer()
            let path = try XenStorePath.watchable(try request.text(), of: session.caller.domain)
            try watch(path, token: token, of: session.id)
        case .storeUnwatch: try unwatch(try request.integer(), of: session.id)
        case .storeTakeEvents:
            let tokens = takeEvents(of: session.id)
            reply.message.put(UInt32(truncatingIfNeeded: tokens.count))
            for token in tokens { reply.message.put(token) }
        default:
            let transaction: UInt32 = try request.integer()
            let path = try XenStorePath.canonical(try request.text(), of: session.caller.domain)
            try answerNode(call, path, transaction, &request, session.id, &reply.message)
        }
        return reply
    }

    private mutating func answerNode(
        _ call: SimulatedCall,
        _ path: String,
        _ transaction: UInt32,
        _ request: inout MessageReader,
        _ id: UInt64,
        _ reply: inout MessageWriter
    ) throws(Errno) {
        switch call {
        case .storeRead: reply.put(try storeRead(path, in: transaction, of: id))
        case .storeDirectory:
            let names = try storeDirectory(path, in: transaction, of: id)
            reply.put(UInt32(truncatingIfNeeded: names.count))
            for name in names { reply.put(name) }
        case .storePermissions: reply.put(try storePermissions(path, in: transaction, of: id))
        case .storeWrite: try storeApply(.write(path, try request.blob()), in: transaction, of: id)
        case .storeRemove: try storeApply(.remove(path), in: transaction, of: id)
        default: try storeApply(.setPermissions(path, try request.permissions()), in: transaction, of: id)
        }
    }

    private mutating func answerGrants(
        _ call: SimulatedCall,
        _ request: inout MessageReader,
        _ session: Session
    ) throws(Errno) -> MachineReply {
        var reply = MachineReply()
        switch call {
        case .memory:
            let domain = try living(try request.domain())
            reply.message.put(domain.serial)
            reply.descriptors = [domain.memory.frames, domain.memory.tableFile]
        case .map:
            let remote = try request.domain()
            let writable: UInt8 = try request.integer()
            let references = try request.numbers()
            let result = try map(references, of: remote, writable: writable != 0, for: session.id)
            reply.message.put(result.mapping)
            reply.message.put(result.serial)
            reply.message.put(result.frames)
        case .unmap: try unmap(try request.integer(), of: session.id)
        case .share:
            let grantee = try request.domain()
            let readOnly: UInt8 = try request.integer()
            let count = Int(try request.integer(UInt32.self))
            let result = try share(count, with: grantee, readOnly: readOnly != 0, of: session.id)
            reply.message.put(result.share)
            reply.message.put(result.references)
            reply.message.put(result.frames)
        case .unshare: endShare(try request.integer(), of: session.serial)
        case .revoke: try revoke(try request.integer(), of: session.id)
        case .copy: break
        default: throw .badMessage
        }
        return reply
    }

    private mutating func answerPorts(
        _ call: SimulatedCall,
        _ request: inout MessageReader,
        _ session: Session
    ) throws(Errno) -> MachineReply {
        var reply = MachineReply()
        let bound: (number: UInt32, port: Port)
        switch call {
        case .bind:
            let remote = try request.domain()
            bound = try bindPort(try request.integer(), of: remote, for: session.id)
        case .allocate: bound = try allocatePort(for: try request.domain(), of: session.id)
        default:
            try closePort(try request.integer(), by: session.id)
            return reply
        }
        reply.message.put(bound.number)
        reply.descriptors = [bound.port.inbound, bound.port.outbound]
        return reply
    }
}

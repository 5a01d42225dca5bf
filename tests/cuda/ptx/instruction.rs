//! Instructions, decoded: registers are places in a warp's files.

/// How many registers a thread has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    pub(super) words: usize,
    pub(super) longs: usize,
    pub(super) predicates: usize,
}

/// A 32-bit register or number. Half-precision registers take one too.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Register(usize),
    Number(u32),
}

/// A 64-bit register or number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Long {
    Register(usize),
    Number(u64),
}

/// An instruction with its line in the text and the predicate that it depends on: its register, and whether that has to be false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) guard: Option<(usize, bool)>,
    pub(super) instruction: Instruction,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    /// One result from up to three words.
    Words(WordOperation, usize, [Word; 3]),
    /// One result from up to three longs.
    Longs(LongOperation, usize, [Long; 3]),
    /// A long from words.
    Widen(Widening, usize, [Word; 2]),
    /// The lower half of a long.
    LowHalf(usize, Long),
    CompareWords(Comparison, usize, [Word; 2]),
    CompareLongs(Comparison, usize, [Long; 2]),
    Predicates(PredicateOperation, usize, [usize; 2]),
    Select(usize, [Word; 2], usize),
    Special(SpecialRegister, usize),
    /// A parameter, at its offset, into a word or a long.
    Parameter {
        to: Target,
        offset: usize,
        size: usize,
    },
    Load {
        space: Space,
        size: usize,
        to: usize,
        address: Long,
        offset: i64,
    },
    Store {
        space: Space,
        size: usize,
        value: Word,
        address: Long,
        offset: i64,
    },
    /// Another lane's value; the predicate says whether there is such a lane.
    Shuffle {
        to: usize,
        predicate: Option<usize>,
        value: Word,
        lane: Word,
        clamp: Word,
        members: Word,
    },
    Branch(usize),
    Barrier(Word),
    Fence,
    Return,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Word(usize),
    Long(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordOperation {
    Move,
    Add,
    Subtract,
    MultiplyLow,
    MultiplyAdd,
    DivideUnsigned,
    RemainderUnsigned,
    MinimumUnsigned,
    MaximumUnsigned,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    /// A field of the first word: from bit, number of bits.
    ExtractField,
    /// The first word's lower bits in the second one; the third has the position and, in its low byte, the number of bits.
    InsertField,
    AddFloats,
    SubtractFloats,
    MultiplyFloats,
    FusedMultiplyAdd,
    Negate,
    Reciprocal,
    SquareRoot,
    FloatOfHalf,
    HalfOfFloat,
    FloatOfUnsigned,
    UnsignedOfFloat,
}

impl WordOperation {
    pub(super) fn flops(self) -> u64 {
        match self {
            Self::FusedMultiplyAdd => 2,
            Self::AddFloats | Self::SubtractFloats | Self::MultiplyFloats | Self::Reciprocal | Self::SquareRoot => 1,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LongOperation {
    Move,
    Add,
    Subtract,
    MultiplyLow,
    And,
    Or,
    ShiftLeft,
    ShiftRight,
    /// The first long's lower half above the lower half of the second one.
    Join,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Widening {
    /// The word.
    Unsigned,
    /// The product of both.
    MultiplyUnsigned,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PredicateOperation {
    And,
    Or,
    Not,
}

/// As what two values are compared, and how. With floats, `or_nan` says what a NaN makes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    pub(super) kind: Kind,
    pub(super) relation: Relation,
    pub(super) or_nan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    Signed,
    Float,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum SpecialRegister {
    Thread(usize),
    Block(usize),
    Blocks(usize),
    Threads(usize),
}

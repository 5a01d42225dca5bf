//! Instructions, decoded. Operands are places in a warp's registers; a number is a register that nothing writes.

/// A 32-bit register; one of 16 bits takes as much.
pub(super) type Word = usize;

/// A 64-bit register.
pub(super) type Long = usize;

/// A predicate.
pub(super) type Predicate = usize;

/// What a thread's registers hold at first: zeros, then the numbers that instructions name.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    pub(super) words: Vec<u32>,
    pub(super) longs: Vec<u64>,
    pub(super) predicates: usize,
}

/// An instruction with its line in the text and the predicate that it depends on, and whether that has to be false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) guard: Option<(Predicate, bool)>,
    pub(super) instruction: Instruction,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Instruction {
    /// One result from up to three words.
    Words(WordOperation, Word, [Word; 3]),
    /// One result from up to three longs.
    Longs(LongOperation, Long, [Long; 3]),
    /// A long shifted by a word.
    Shift(LongShift, Long, Long, Word),
    /// A long from words.
    Widen(Widening, Long, [Word; 2]),
    /// A word from a long.
    Narrow(Narrowing, Word, Long),
    /// The halves of a long, the lower one first.
    Halves([Word; 2], Long),
    CompareWords(Comparison, Predicate, [Word; 2]),
    CompareLongs(Comparison, Predicate, [Long; 2]),
    Predicates(PredicateOperation, Predicate, [Predicate; 2]),
    Select(Word, [Word; 2], Predicate),
    SelectLong(Long, [Long; 2], Predicate),
    Special(SpecialRegister, Word),
    /// A parameter, by its offset, into a word or a long.
    ParameterWord(Word, usize),
    ParameterLong(Long, usize),
    /// A parameter of four bytes into a long.
    ParameterWidened(Long, usize),
    Load(Access, Word),
    LoadLong(Access, Long),
    Store(Access, Word),
    StoreLong(Access, Long),
    Shuffle(Shuffle),
    Branch(usize),
    Barrier,
    Fence,
    Return,
}

impl Instruction {
    /// Whether threads of a warp wait here for each other.
    pub(super) fn is_meeting(self) -> bool {
        matches!(self, Self::Barrier | Self::Shuffle(_))
    }
}

/// Where an instruction reads or writes: `size` bytes at an address and an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) space: Space,
    pub(super) size: usize,
    pub(super) address: Long,
    pub(super) offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
}

/// Another lane's value; the predicate says whether there is such a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffle {
    pub(super) to: Word,
    pub(super) found: Option<Predicate>,
    pub(super) value: Word,
    pub(super) lane: Word,
    pub(super) clamp: Word,
    pub(super) members: Word,
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
    /// A field of the first word: from which bit, how many.
    ExtractField,
    /// The first word's lower bits in the second word; the third one holds how many, and above its low byte at which bit.
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
    /// The first long's lower half above that of the second one.
    Join,
    AddDoubles,
    MultiplyDoubles,
    FusedMultiplyAddDoubles,
    NegateDouble,
    ReciprocalOfDouble,
}

impl LongOperation {
    pub(super) fn flops(self) -> u64 {
        match self {
            Self::FusedMultiplyAddDoubles => 2,
            Self::AddDoubles | Self::MultiplyDoubles | Self::ReciprocalOfDouble => 1,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum LongShift {
    Left,
    Right,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Widening {
    /// The first word.
    Unsigned,
    /// The product of both.
    MultiplyUnsigned,
    /// The first one below the second one.
    Pack,
    DoubleOfFloat,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Narrowing {
    LowHalf,
    FloatOfDouble,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum PredicateOperation {
    And,
    Or,
    Not,
}

/// As what two values are compared, and how. `or_nan` says what comes of it if one of them is NaN.
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

/// What a thread knows about its place, along an axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum SpecialRegister {
    Thread(usize),
    Block(usize),
    Blocks(usize),
    Threads(usize),
}

package topology

// BurnEpoch changes nothing but the epoch. A cutover that is taken back leaves shards with a fence that is above the
// catalog's epoch, and refuses every map until the epoch has come there; and its epoch must not be used by anybody else.
type BurnEpoch struct{}

func (BurnEpoch) String() string { return "burn the epoch of a cutover that was taken back" }

func (BurnEpoch) apply(*draft) error { return nil }

func (BurnEpoch) encode(dst []byte) []byte { return append(dst, kindBurnEpoch) }

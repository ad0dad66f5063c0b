//! Does a Chinese text look like a person's name?

use super::text;

/// The hundred commonest family names, and those of two characters.
const FAMILY: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖\
     贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤陳張劉楊黃趙吳";
const LONG_FAMILY: &str = "欧阳 上官 司马 诸葛 司徒 东方 慕容 皇甫 令狐 夏侯 尉迟 公孙";

/// A family name and one or two characters; nothing else.
pub(super) fn is_person(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    if value.len() > 12 || !(0..value.len() / 3).all(|at| text::is_han(value.as_bytes(), at * 3)) || !value.len().is_multiple_of(3) {
        return false;
    }
    let count = value.len() / 3;
    let long = value.get(..6).is_some_and(|family| LONG_FAMILY.split(' ').any(|known| known == family));
    let short = value.chars().next().is_some_and(|first| FAMILY.contains(first));
    (long && (3..=4).contains(&count)) || (short && (2..=3).contains(&count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persons_are_told_from_goods() {
        for (text, expected) in [
            ("张三", true),
            ("李小龙", true),
            ("欧阳娜娜", true),
            ("蓝牙耳机", false),
            ("订单", false),
            ("张", false),
            ("王a", false),
            ("", false),
        ] {
            assert_eq!(is_person(text.as_bytes()), expected, "{text}");
        }
    }
}
